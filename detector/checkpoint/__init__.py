"""How streams' memory outlives the process: one protocol, one format, stores behind one contract."""
