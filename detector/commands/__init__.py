"""The commands of `tidewarden`, one module each; imported when used, so that `--help` stays quick.

Each module offers `command`, a function that typer reads. It raises `TidewardenError` for what the operator can put
right, and `typer.Exit(code)` where it ends otherwise than well.
"""
