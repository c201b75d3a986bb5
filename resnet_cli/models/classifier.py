"""From class scores to probabilities and labels. Shapes: B images, K classes; scores are unnormalised (logits)."""

from torch import Tensor, nn


class ArgMaxClassifier(nn.Module):
    """Chooses the class with the highest score.

    Like any `torch.nn.Module`, it predicts in the mode that it is in: call `eval()` before, and use `torch.no_grad()`.

    Args:
        model: Maps a batch of inputs `[B, ...]` to scores `[B, K]`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Class scores `[B, K]`."""
        scores: Tensor = self.model(inputs)
        return scores

    def predict_proba(self, inputs: Tensor) -> Tensor:
        """Class probabilities `[B, K]` of `inputs`."""
        return self.predict_proba_scores(self(inputs))

    def predict_proba_scores(self, scores: Tensor) -> Tensor:
        """Class probabilities `[B, K]` of `scores` `[B, K]`: their softmax."""
        return scores.softmax(dim=1)

    def classify(self, inputs: Tensor) -> Tensor:
        """Labels `[B]` (int64) of `inputs`."""
        return self.classify_scores(self(inputs))

    def classify_scores(self, scores: Tensor) -> Tensor:
        """Labels `[B]` (int64) of `scores` `[B, K]`."""
        return scores.argmax(dim=1)
