"""Readout: what the trained net cannot know of all streams, each stream learns of its own while it runs.

    phi = tanh(A heard), and a one              F features, learnt once, of what the forecaster remembers
    centre = what the head says + w' phi        w is the stream's own and starts at 0
    C <- C + rate (x x' - C)                    x = phi / sigma, sigma = the width that the head foretells
    b <- b + rate (x t - b)                     t = what w' x should have been, at most four sigma from what it was
    w: (C + prior rate I) w = b                 recursive least squares, weighted, with a Gaussian prior

w follows its solution by one step of steepest descent a sample, scaled by the diagonal of C, from where it was and as
long as is best along the direction: such a step never leads uphill, whatever the numbers, and forgets rounding errors.
(Conjugate directions are quicker by a tenth and let a millionth grow to a tenth: docs/experiments.md.) After some
hundred samples it is as good as the exact solution. So a net that has seen a thousand chaotic systems finds the
parameters of the one before it.

`follow` is what the exported step does. While the net is in training (`Module.train`), `unroll` instead solves for w
once per chunk and keeps it through the next, which costs a tenth and teaches the features the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MEMORY = 4_000.0  # samples
_PRIOR = 4.0  # how much 1 / (variance of a weight) is; a noisy stream believes in w = 0 for longer
_REACH = 4.0  # sigma; what a single sample may count for
_NARROWEST = 0.02  # change scales; sigma of a stream that is foretold exactly
_CHUNK = 64  # samples between two solutions in training
_NEVER_DENORMAL = 1e-6  # errors of an exact 0 would let b decay into denormal floats, which are slow
_TINY = 1e-12


class Readout(nn.Module):
    """Features, and the least-squares weights of one stream on them.

    Args:
        heard: Width of what the features are made of.
        width: F, the constant one included.
    """

    def __init__(self, heard: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.features = nn.Linear(heard, width - 1)
        self.state_width = width * (width + 3)

    def phi(self, heard: Tensor) -> Tensor:
        """Features (..., F) of what is remembered (..., heard)."""
        one = torch.ones_like(heard[..., :1])
        return torch.cat([torch.tanh(self.features(heard)), one], dim=-1)

    def correction(self, phi: Tensor, state: Tensor) -> Tensor:
        """What is added to the forecast (M, 1), from phi (M, F) and state (M, state_width)."""
        return (phi * self._split(state)[-1]).sum(dim=-1, keepdim=True)

    def follow(self, phi: Tensor, error: Tensor, sigma: Tensor, rate: Tensor, state: Tensor) -> Tensor:
        """Learn from one sample.

        Args:
            phi: (M, F), before the sample.
            error: (M, 1) of the whole forecast, correction included, in change scales.
            sigma: (M, 1) width of the forecast, in change scales.
            rate: (M, 1) how much the sample counts.
            state: (M, state_width) before it.
        """
        matrix, diagonal, b, w = self._split(state)
        rate = _rate(rate)
        x, reached = _weigh(phi, error, sigma)
        matrix = matrix + rate.unsqueeze(-1) * (x.unsqueeze(-1) @ x.unsqueeze(-2) - matrix)
        diagonal = diagonal + rate * (x * x - diagonal)
        b = b + rate * (x * ((w * x).sum(dim=-1, keepdim=True) + reached) - b)
        ridge = _PRIOR * rate
        residual = b - _image(matrix, w) - ridge * w
        direction = residual / (diagonal + ridge)
        gain = (direction * residual).sum(dim=-1, keepdim=True)
        resistance = (direction * (_image(matrix, direction) + ridge * direction)).sum(dim=-1, keepdim=True)
        w = w + gain / resistance.clamp(min=_TINY) * direction
        return torch.cat([matrix.flatten(-2), diagonal, b, w], dim=-1)

    @torch.no_grad()
    def unroll(self, phi: Tensor, target: Tensor, sigma: Tensor, rate: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Do `follow` for T samples, or nearly that while the net is in training.

        Args:
            phi: (M, T, F) before each sample.
            target: (M, T, 1) what the correction should have been.
            sigma: (M, T, 1).
            rate: (M, T, 1); 0 leaves everything as it is.
            state: (M, state_width).

        Returns:
            The weights before each sample and after the last (M, T + 1, F), and the last state.
        """
        given = (phi, target, sigma, rate)
        if self.training:
            return self._rehearse(*given, state)
        weights = [self._split(state)[-1]]
        for x, y, s, r in zip(*(one.unbind(dim=1) for one in given), strict=True):
            error = y - (x * weights[-1]).sum(dim=-1, keepdim=True)
            state = torch.where(r > 0, self.follow(x, error, s, r, state), state)
            weights.append(self._split(state)[-1])
        return torch.stack(weights, dim=1), state

    def _rehearse(
        self, phi: Tensor, target: Tensor, sigma: Tensor, rate: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        matrix, diagonal, b, w = self._split(state)
        weights = []
        for chunk in zip(*(one.split(_CHUNK, dim=1) for one in (phi, target, sigma, rate)), strict=True):
            features, wanted, width, pace = chunk
            weights.append(w.unsqueeze(1).expand(-1, features.shape[1], -1))
            said = features @ w.unsqueeze(-1)
            x, reached = _weigh(features, wanted - said, width)
            pace = torch.where(pace > 0, _rate(pace), 0.0)
            kept = (1 - pace).clamp(min=1e-6).log().flip(1).cumsum(dim=1).flip(1)
            counts = pace * (kept - (1 - pace).clamp(min=1e-6).log()).exp()  # of each sample at the end of the chunk
            left = kept[:, 0].exp()
            matrix = left.unsqueeze(-1) * matrix + x.transpose(1, 2) @ (counts * x)
            diagonal = left * diagonal + (counts * x * x).sum(dim=1)
            b = left * b + (counts * x * (said / width.clamp(min=_NARROWEST) + reached)).sum(dim=1)
            ridge = _PRIOR * pace.amax(dim=1).clamp(min=1 / _MEMORY)
            w = torch.linalg.solve(matrix + torch.diag_embed(ridge.expand_as(b)), b)
        weights.append(w.unsqueeze(1))
        return torch.cat(weights, dim=1), torch.cat([matrix.flatten(-2), diagonal, b, w], dim=-1)

    def _split(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """C (M, F, F), its diagonal, b and w (M, F)."""
        flat, diagonal, b, w = state.split([self.width**2, *[self.width] * 3], dim=-1)
        return flat.unflatten(-1, (self.width, self.width)), diagonal, b, w


def _rate(rate: Tensor) -> Tensor:
    return rate.clamp(min=1 / _MEMORY)


def _weigh(phi: Tensor, error: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Features and error in units of what was to be expected."""
    sigma = sigma.clamp(min=_NARROWEST)
    return phi / sigma, (error / sigma).clamp(-_REACH, _REACH) + _NEVER_DENORMAL


def _image(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
