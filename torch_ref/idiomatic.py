"""The recogniser as a PyTorch user writes it for speed: the baseline of the benchmarks.

The readable reference (`torch_ref.model`, `torch_ref.train`) takes each line at its own width and spells every step
out. Here, a batch has one width and goes through PyTorch's own layers in channels-last memory, with cuDNN's LSTM on a
GPU, a fused AdamW and a foreach gradient norm. On equal weights, the loss and the gradients are those of the reference
(tests/parity/test_idiomatic.py).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_ref.model import BACKBONES, CRNN, ModelConfig
from torch_ref.train import OptimConfig, schedule


class Recogniser(nn.Module):
    """A CRNN for batches of one width: ``Recogniser(config)(images [B,1,32,W]) -> logits [T,B,C]``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        size = 1
        for layer in BACKBONES[config.backbone]:
            padding = (0, 0) if layer.valid else (layer.kernel[0] // 2, layer.kernel[1] // 2)
            layers.append(nn.Conv2d(size, layer.features, layer.kernel, padding=padding, bias=not layer.norm))
            if layer.norm:
                layers.append(nn.BatchNorm2d(layer.features))
            layers.append(nn.ReLU(inplace=True))
            if layer.pool:
                layers.append(nn.MaxPool2d(layer.pool, (layer.pool[0], layer.stride), (0, layer.pad)))
            size = layer.features
        self.backbone = nn.Sequential(*layers)
        self.lstm = nn.LSTM(size, config.hidden, num_layers=2, bidirectional=True)
        self.head = nn.Linear(2 * config.hidden, config.num_classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        rows = self.backbone(images).squeeze(2).permute(2, 0, 1).contiguous()
        return self.head(self.lstm(rows)[0])

    def load_reference(self, model: CRNN) -> None:
        """Copy the weights and running statistics of a reference model of the same configuration."""
        for kind, prefix in ((nn.Conv2d, "conv"), (nn.BatchNorm2d, "norm")):
            mine = [layer for layer in self.backbone if isinstance(layer, kind)]
            theirs = [layer for name, layer in model.backbone.named_children() if name.startswith(prefix)]
            for one, other in zip(mine, theirs, strict=True):
                one.load_state_dict(other.state_dict(), strict=False)  # the reference counts no batches
        for depth, lstm in enumerate((model.lstm0, model.lstm1)):
            weights = {name.replace("_l0", f"_l{depth}"): array for name, array in lstm.state_dict().items()}
            self.lstm.load_state_dict(weights, strict=False)
        self.head.load_state_dict(model.head.state_dict())


def to_images(images: Tensor) -> Tensor:
    """Convert images ``[B,H,W,1]`` to channels-last ``[B,1,H,W]``."""
    return images.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def ctc_loss(logits: Tensor, labels: Tensor, label_lengths: Tensor) -> Tensor:
    """Compute the mean CTC loss over the batch, in float32, of logits ``[T,B,C]`` that all frames belong to."""
    log_probs = F.log_softmax(logits.float(), dim=2)
    lengths = torch.full_like(label_lengths, len(logits))
    values = F.ctc_loss(log_probs, labels, lengths, label_lengths, reduction="none", zero_infinity=True)
    return values.mean()


class Trainer:
    """Trains a model with AdamW, a clipped gradient norm and the reference's learning rate.

    With ``bfloat16``, the model runs under autocast, and the loss in float32.
    """

    def __init__(self, model: Recogniser, config: OptimConfig, bfloat16: bool = False) -> None:
        self.model, self.config, self.bfloat16, self.step_number = model, config, bfloat16, 0
        options: dict[str, Any] = {"betas": (config.beta1, config.beta2), "weight_decay": config.weight_decay}
        self.optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, fused=True, **options)

    def step(self, images: Tensor, labels: Tensor, label_lengths: Tensor) -> Tensor:
        """Take one step on images ``[B,1,32,W]`` of one width and return the loss."""
        self.model.train()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.model(images)
        loss = ctc_loss(logits, labels, label_lengths)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = schedule(self.config, self.step_number)
        self.optimizer.step()
        self.step_number += 1
        return loss.detach()
