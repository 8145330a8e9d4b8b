"""Attention in plain layers, so that heads can be pruned: what `nn.MultiheadAttention` computes, with its weights."""

import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., NeurIPS 2017) with a linear layer each for queries, keys, values, outputs.

    Called like `nn.MultiheadAttention`, and gives the same. `heads` may be fewer than the width has room for.
    """

    in_proj_bias = None  # torch's own encoder layer asks, and then takes no short cut

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads, self.head_width = source.num_heads, source.head_dim
        self.batch_first, self.dropout = source.batch_first, source.dropout
        self._qkv_same_embed_dim = False
        packed = source.in_proj_weight
        weights = (
            packed.detach().chunk(3)
            if packed is not None
            else (source.q_proj_weight, source.k_proj_weight, source.v_proj_weight)
        )
        biases = source.in_proj_bias.detach().chunk(3) if source.in_proj_bias is not None else (None, None, None)
        last, trains = source.out_proj, source.out_proj.weight.requires_grad
        self.query, self.key, self.value = (
            _linear(weight.detach(), bias, trains) for weight, bias in zip(weights, biases, strict=True)
        )
        bias = None if last.bias is None else last.bias.detach()
        self.out = _linear(last.weight.detach(), bias, trains)
        self.training = source.training

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """[n, length, width] each (or [length, n, width]) → the same, and the weights [n, length, length] if wanted."""
        if not self.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        asked = self._divided(self.query(query))
        known, held = self._divided(self.key(key)), self._divided(self.value(value))
        mask = self._mask(attn_mask, key_padding_mask, asked)
        weights = None
        if need_weights:
            scores = asked @ known.transpose(-2, -1) * self.head_width**-0.5
            shares = (scores if mask is None else scores + mask).softmax(-1)
            weights = shares.mean(1) if average_attn_weights else shares
            found = functional.dropout(shares, self.dropout, self.training) @ held
        else:
            dropout = self.dropout if self.training else 0.0
            found = functional.scaled_dot_product_attention(asked, known, held, mask, dropout)
        joined = self.out(found.transpose(1, 2).flatten(2))
        return (joined if self.batch_first else joined.transpose(0, 1)), weights

    def _divided(self, values: torch.Tensor) -> torch.Tensor:
        """[n, length, heads · width of a head] → [n, heads, length, width of a head]."""
        return values.reshape(values.shape[0], values.shape[1], self.heads, self.head_width).transpose(1, 2)

    def _mask(
        self, attention: torch.Tensor | None, padding: torch.Tensor | None, asked: torch.Tensor
    ) -> torch.Tensor | None:
        """Return the mask that is added to the scores, [n or 1, heads or 1, length, length]."""
        total: torch.Tensor | None = None
        if attention is not None:
            shaped = attention.reshape(-1, self.heads, *attention.shape[-2:]) if attention.ndim == 3 else attention
            total = _added(shaped, asked)
        if padding is not None:
            more = _added(padding[:, None, None, :], asked)
            total = more if total is None else total + more
        return total


def _added(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A mask as numbers: minus infinity where one of truth values says so."""
    if mask.dtype != torch.bool:
        return mask.to(like)
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(mask, float("-inf"))


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, trains: bool) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer.requires_grad_(trains)


def plain(attention: nn.MultiheadAttention) -> bool:
    """Return whether an attention is of the kind that `Attention` computes."""
    return attention.bias_k is None and attention.bias_v is None and not attention.add_zero_attn
