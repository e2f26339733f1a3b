"""How far back gradients reach: the norm of d loss(t) / d h(t - k), for k = 1, 2, ... samples.

What a hidden state k samples ago may still say to today's loss is what training can learn of it. A curve that falls by
a constant factor a sample vanishes: whatever lies further back is out of reach, however long `fit.back` is. One that
rises explodes, and clipping will have to hold it. Bengio et al. 1994, Pascanu et al. 2013.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.fit.loss import pinball
from training.graph.forecaster import Forecaster
from training.spans import Span, side_by_side

_LAGS = 64
_STREAMS = 16
_MOMENTS = 4  # of which the loss is looked at, one after the other
_SETTLE = 128  # samples that the hidden state is given before


def reach(forecaster: Forecaster, spans: Sequence[Span], levels: Tensor) -> list[float]:
    """Measure on the ends of the longest spans.

    Args:
        forecaster: As it is to be measured, on the CPU.
        spans: Of one stream each.
        levels: Of the forecaster's quantiles (Q,).

    Returns:
        The median norm over streams and moments, 1, 2, ... samples back; none where no span is long enough.
    """
    longest = max(spans, key=lambda span: len(span.target))
    length = min(len(longest.target), _SETTLE + _MOMENTS * _LAGS)
    alike = [span.part(slice(-length, None)) for span in spans if span.target.shape == longest.target.shape]
    batch, settled = side_by_side(alike[:_STREAMS]), length % _LAGS + max(0, length // _LAGS - _MOMENTS) * _LAGS
    forecaster.eval()
    hidden, norms = forecaster.initial_hidden(len(batch.target), batch.target.shape[2]), []
    if settled:
        before = batch.samples(slice(0, settled))
        with torch.no_grad():
            _, hidden = forecaster.unroll(before.inputs, before.query, before.observed, hidden)
    for stretch in batch.samples(slice(settled, None)).chunks(_LAGS):
        found, hidden = _norms(forecaster, stretch, hidden, levels)
        norms.append(found[:, found[0] > 0])  # a target that does not count has no gradient at all
    return torch.cat(norms, dim=1).median(dim=1).values.tolist() if norms and sum(one.numel() for one in norms) else []


def _norms(forecaster: Forecaster, stretch: Span, hidden: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Of the stretch's last loss: norms (lags, memories), and the hidden state after it."""
    states = [hidden.detach().requires_grad_()]
    for sample in stretch.chunks(1):
        quantiles, after = forecaster.unroll(sample.inputs, sample.query, sample.observed, states[-1])
        states.append(after)
    loss = pinball(quantiles, sample, levels).sum()
    gradients = torch.autograd.grad(loss, states[-2::-1], materialize_grads=True)  # zero where nothing is remembered
    width = forecaster.cell.state_width  # what follows is the line, which forgets nothing for a while
    return torch.stack([gradient[..., :width].norm(dim=-1).flatten() for gradient in gradients]), states[-1].detach()
