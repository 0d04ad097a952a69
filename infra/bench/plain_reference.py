"""The references' training steps in plain PyTorch, as a yardstick for step time.

Written from the published algorithms: explicit softmax attention (the MAE code's timm 0.3.2, and DINOv2 without
xFormers), every (student, teacher) pair of crops by itself, the patch embedding of all patches, AdamW and the moving
average as the reference scripts call them. Nothing here is used for training.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PlainDino", "PlainMae", "PlainViT"]


class PlainAttention(nn.Module):
    """Softmax attention written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, D)` to the same."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv[0] * self.scale, qkv[1], qkv[2]
        attention = (query @ key.transpose(-2, -1)).softmax(dim=-1)
        out: Tensor = self.proj((attention @ value).transpose(1, 2).reshape(batch, tokens, width))
        return out


class PlainBlock(nn.Module):
    """Pre-norm block with LayerScale and batch-subset stochastic depth."""

    def __init__(self, width: int, heads: int, *, scale: float | None, drop: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = PlainAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.gamma1 = nn.Parameter(torch.full((width,), scale)) if scale else None
        self.gamma2 = nn.Parameter(torch.full((width,), scale)) if scale else None
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, D)` to the same."""
        x = self._residual(x, lambda y: self._scaled(self.attn(self.norm1(y)), self.gamma1))
        return self._residual(x, lambda y: self._scaled(self.mlp(self.norm2(y)), self.gamma2))

    def _residual(self, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        if not (self.training and self.drop):
            return x + branch(x)
        kept = max(int(len(x) * (1 - self.drop)), 1)
        rows = torch.randperm(len(x))[:kept]
        flat = x.flatten(1).index_add(0, rows, branch(x[rows]).flatten(1), alpha=len(x) / kept)
        return flat.view_as(x)

    def _scaled(self, x: Tensor, gamma: Tensor | None) -> Tensor:
        return x if gamma is None else x * gamma


class PlainViT(nn.Module):
    """A Vision Transformer with CLS token and mask token."""

    def __init__(
        self,
        *,
        size_px: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        scale: float | None = None,
        drop: float = 0,
    ) -> None:
        super().__init__()
        self.patch, self.width, self.side = patch, width, size_px // patch
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.cls, self.mask = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, width))
        self.positions = nn.Parameter(torch.randn(1, 1 + self.side**2, width) * 0.02)
        self.blocks = nn.ModuleList(PlainBlock(width, heads, scale=scale, drop=drop) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """All tokens after the norm."""
        x = self.embed(images).flatten(2).transpose(1, 2)
        if masks is not None:
            x = torch.where(masks.unsqueeze(-1), self.mask.unsqueeze(0), x)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self._positions(images.shape[-1] // self.patch)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.norm(x)
        return out

    def _positions(self, side: int) -> Tensor:
        if side == self.side:
            return self.positions
        grid = self.positions[:, 1:].reshape(1, self.side, self.side, -1).permute(0, 3, 1, 2)
        factor = (side + 0.1) / self.side
        grid = functional.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
        return torch.cat([self.positions[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


class PlainHead(nn.Module):
    """DINO's head."""

    def __init__(self, width: int, *, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.last = nn.utils.parametrizations.weight_norm(nn.Linear(bottleneck, prototypes, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """`(rows, D)` to logits."""
        logits: Tensor = self.last(functional.normalize(self.mlp(x), dim=-1))
        return logits


class PlainDino:
    """One DINOv2 step with a shared head and EMA centre.

    Args:
        vit: Settings of `PlainViT`.
        head: Settings of `PlainHead`.
    """

    def __init__(self, vit: dict[str, object], head: dict[str, int]) -> None:
        def network() -> nn.ModuleDict:
            backbone = PlainViT(**vit)  # type: ignore[arg-type]  # settings by name
            return nn.ModuleDict({"backbone": backbone, "head": PlainHead(backbone.width, **head)})

        self.student, self.teacher = network(), network().requires_grad_(requires_grad=False)
        self.teacher.load_state_dict(self.student.state_dict())
        self.center = torch.zeros(2, 1, head["prototypes"])
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=1e-4, weight_decay=0.04)

    def step(self, images: Tensor, local: Tensor, masks: Tensor, rows: Tensor, weights: Tensor) -> float:
        """Forward, backward, clip, AdamW, EMA; the loss."""
        batch = len(images) // 2
        num_local = len(local) // batch
        with torch.no_grad():
            targets, patch_targets = self._targets(images, rows)
        tokens, local_tokens = self.student["backbone"](images, masks), self.student["backbone"](local)
        masked = tokens[:, 1:].flatten(0, 1)[rows]
        logits = self.student["head"](torch.cat([local_tokens[:, 0], tokens[:, 0], masked]))
        local_logits, global_logits, patch_logits = logits.split([len(local), len(images), len(rows)])
        terms = 2 + 2 * num_local
        loss = self._pairs(local_logits.chunk(num_local), targets.chunk(2)) / terms
        loss = loss + 2 * self._pairs([global_logits], [targets]) / terms
        entropy = (patch_targets * functional.log_softmax(patch_logits / 0.1, dim=-1)).sum(-1)
        loss = loss - (entropy * weights).sum() / len(images)
        loss = loss + 0.1 * sum(self._koleo(crop) for crop in tokens[:, 0].chunk(2))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        for part in self.student.values():
            nn.utils.clip_grad_norm_(part.parameters(), 3.0)
        self.optimizer.step()
        self._average()
        return float(loss.detach())

    def _targets(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.teacher["backbone"](images)
        first, second = tokens[:, 0].chunk(2)
        logits = self.teacher["head"](torch.cat([second, first, tokens[:, 1:].flatten(0, 1)[rows]]))
        parts = logits.split([len(images), len(rows)])
        targets = [
            functional.softmax((part - center) / 0.05, dim=-1) for part, center in zip(parts, self.center, strict=True)
        ]
        for center, part in zip(self.center, parts, strict=True):
            center.mul_(0.9).add_(part.mean(0, keepdim=True), alpha=0.1)
        return targets[0], targets[1]

    def _pairs(self, students: object, teachers: object) -> Tensor:
        total = torch.zeros(())
        for student in students:  # type: ignore[attr-defined]  # tuples or lists of tensors
            log = functional.log_softmax(student / 0.1, dim=-1)
            for teacher in teachers:  # type: ignore[attr-defined]
                total = total - (teacher * log).sum(-1).mean()
        return total

    def _koleo(self, x: Tensor) -> Tensor:
        x = functional.normalize(x, dim=-1)
        with torch.no_grad():
            nearest = (x @ x.T).fill_diagonal_(-1).argmax(1)
        return -torch.log(functional.pairwise_distance(x, x[nearest], eps=1e-8) + 1e-8).mean()

    @torch.no_grad()
    def _average(self) -> None:
        for old, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            old.mul_(0.992).add_(new, alpha=0.008)


class PlainMae(nn.Module):
    """One MAE step.

    Args:
        vit: Settings of `PlainViT`.
        width: Of the decoder.
        depth: Blocks of the decoder.
        heads: Of the decoder.
    """

    def __init__(self, vit: dict[str, object], *, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.encoder = PlainViT(**vit)  # type: ignore[arg-type]  # settings by name
        self.embed = nn.Linear(self.encoder.width, width)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 1 + self.encoder.side**2, width), requires_grad=False)
        self.blocks = nn.ModuleList(PlainBlock(width, heads, scale=None, drop=0) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pred = nn.Linear(width, 3 * self.encoder.patch**2)
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)

    def step(self, images: Tensor, noise: Tensor) -> float:
        """Forward, backward, AdamW; the loss."""
        encoder, kept = self.encoder, int(noise.shape[1] * 0.25)
        shuffle = torch.argsort(noise, dim=1)
        restore = torch.argsort(shuffle, dim=1)
        x = encoder.embed(images).flatten(2).transpose(1, 2) + encoder.positions[:, 1:]
        x = torch.gather(x, 1, shuffle[:, :kept, None].expand(-1, -1, encoder.width))
        x = torch.cat([(encoder.cls + encoder.positions[:, :1]).expand(len(x), -1, -1), x], dim=1)
        for block in encoder.blocks:
            x = block(x)
        x = self.embed(encoder.norm(x))
        hidden = self.token.expand(len(x), restore.shape[1] + 1 - x.shape[1], -1)
        full = torch.gather(torch.cat([x[:, 1:], hidden], dim=1), 1, restore[..., None].expand(-1, -1, x.shape[-1]))
        x = torch.cat([x[:, :1], full], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        prediction = self.pred(self.norm(x))[:, 1:]
        loss = self._loss(images, prediction, (restore >= kept).float())
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        self.optimizer.step()
        return float(loss.detach())

    def _loss(self, images: Tensor, prediction: Tensor, mask: Tensor) -> Tensor:
        side, patch = self.encoder.side, self.encoder.patch
        target = images.reshape(len(images), 3, side, patch, side, patch)
        target = torch.einsum("nchpwq->nhwpqc", target).reshape(len(images), side**2, -1)
        mean, variance = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
        error = ((prediction - (target - mean) / (variance + 1e-6) ** 0.5) ** 2).mean(-1)
        return (error * mask).sum() / mask.sum()
