"""The Siamese network: one encoder with shared weights, its embedding, and the classifier on the embedding."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from retrieval.encoding.head import Head

__all__ = ["Output", "Siamese", "SiameseHead"]


class Output(NamedTuple):
    """embeddings (B, D) of unit length, logits (B,) and suspicion (B, h, w)."""

    embeddings: Tensor
    logits: Tensor
    suspicion: Tensor


class SiameseHead(nn.Module):
    """The head of `encoding.head` in torch, for training; `export` gives its NumPy form, equal to 1e-4 (tested)."""

    def __init__(self, channels: int, dimension: int, hidden: int) -> None:
        super().__init__()
        self.attention = nn.Conv2d(channels, 1, 1)
        self.projection = nn.Linear(2 * channels, dimension)
        self.hidden = nn.Linear(dimension, hidden)
        self.output = nn.Linear(hidden, 1)
        nn.init.zeros_(self.attention.weight)  # starts as plain mean pooling
        nn.init.zeros_(self.projection.bias)
        nn.init.orthogonal_(self.projection.weight)
        self.reset_classifier()

    def reset_classifier(self) -> None:
        """Start the classifier's layers again. Embeddings have unit length, so activations get unit variance."""
        self.hidden.reset_parameters()
        self.output.reset_parameters()
        nn.init.normal_(self.hidden.weight)

    def forward(self, maps: Tensor) -> Output:
        """Feature maps (B, C, h, w) to embeddings, logits and suspicion."""
        suspicion = self.attention(maps).squeeze(1)  # (B, h, w)
        attention = suspicion.flatten(1).softmax(1)  # (B, n)
        places = maps.flatten(2)  # (B, C, n)
        attended = (places @ attention[:, :, None]).squeeze(2)  # (B, C)
        z = torch.cat((places.mean(2), attended), 1)  # (B, 2C)
        embeddings = normalize(self.projection(z), dim=1)  # (B, D)
        return Output(embeddings, self.classify(embeddings), suspicion)

    def classify(self, embeddings: Tensor) -> Tensor:
        logits: Tensor = self.output(torch.relu(self.hidden(embeddings))).squeeze(1)
        return logits

    def export(self) -> Head:
        """The same head for NumPy, in float32."""
        w = {name: value.detach().float().cpu().numpy() for name, value in self.named_parameters()}
        return Head(
            w["attention.weight"].reshape(-1), w["attention.bias"], w["projection.weight"], w["projection.bias"],
            w["hidden.weight"], w["hidden.bias"], w["output.weight"].reshape(-1), w["output.bias"],
        )  # fmt: skip


class Siamese(nn.Module):
    """Backbone and head. Anchor, positive and negative go through the same weights, as rows of one batch."""

    def __init__(self, backbone: nn.Module, channels: int, dimension: int, hidden: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = SiameseHead(channels, dimension, hidden)
        self.frozen_statistics = False

    def forward(self, pictures: Tensor) -> Output:
        """Normalised pictures (B, 3, S, S). Under autocast the head stays in float32: distances need digits."""
        maps = self.backbone(pictures).float()
        with torch.autocast(maps.device.type, enabled=False):
            output: Output = self.head(maps)
        return output

    def freeze_until(self, name: str) -> None:
        """Keep the backbone's parameters before the first whose name starts with `name` as they are.

        Raises ValueError if no name does.
        """
        parameters = list(self.backbone.named_parameters())
        first = next((i for i, (parameter, _) in enumerate(parameters) if parameter.startswith(name)), None)
        if first is None:
            raise ValueError(f"no parameter of the backbone starts with {name}")
        for _, parameter in parameters[:first]:
            parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> "Siamese":
        """As usual, but batch normalisation keeps pretrained statistics: a batch of two labels has skewed ones."""
        super().train(mode)
        if self.frozen_statistics:
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self
