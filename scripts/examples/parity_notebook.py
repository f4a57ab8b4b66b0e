# %% [markdown]
# jaxcrnn and its PyTorch reference side by side: the same weights, loss, gradient and training step, in float64.
# Run it cell by cell in an editor that knows `# %%`, or at once: python scripts/examples/parity_notebook.py

# %% A small model in both packages, with the same weights
import jax
import jax.numpy as jnp
import numpy as np
import torch

import jaxcrnn
import torch_ref.train as reference
from jaxcrnn.augment import AugmentConfig
from torch_ref.types import Batch as TorchBatch

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "standard")
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
sizes = {"backbone": "tiny", "hidden": 8, "num_classes": 11}
theirs = reference.CRNN(reference.ModelConfig(**sizes))
weights = jaxcrnn.convert.from_torch({name: tensor.numpy().copy() for name, tensor in theirs.state_dict().items()})
model = jaxcrnn.ModelConfig(**sizes, dropout=0.0, dtype="float64")

# %% A batch: random images, two of them padded, and their labels
rng = np.random.default_rng(0)
batch = (rng.uniform(-1, 1, (3, 32, 80, 1)), np.array([80, 52, 64]), rng.integers(1, 11, (3, 4)), np.array([4, 2, 3]))
ours_batch = jaxcrnn.Batch(*map(jnp.asarray, batch))
theirs_batch = TorchBatch(*map(torch.from_numpy, batch))


def compare(what, ours, reference):
    ours, reference = np.asarray(ours), np.asarray(reference)
    size = abs(reference).max()
    print(f"{what:28} {abs(ours - reference).max():.1e}, largest value {size:.4g}")


# %% Forward: logits, and the CTC loss of each line
outputs = jaxcrnn.CRNN(model).apply(weights, *ours_batch[:2], train=False)
with torch.no_grad():
    expected = theirs.eval()(*theirs_batch[:2])
compare("logits", outputs.logits, expected.logits)
inputs, expected_inputs = (outputs.lengths, *ours_batch[2:]), (expected.lengths, *theirs_batch[2:])
loss = jaxcrnn.ctc_loss(outputs.logits, *inputs)
compare("CTC loss", loss, reference.ctc.ctc_loss(expected.logits, *expected_inputs))

# %% The gradient of the CTC loss with respect to the logits
leaf = expected.logits.requires_grad_()
reference.ctc.ctc_loss(leaf, *expected_inputs).sum().backward()
compare("gradient", jax.grad(lambda x: jaxcrnn.ctc_loss(x, *inputs).sum())(outputs.logits), leaf.grad)

# %% One training step with center loss: the loss, every parameter and the centers afterwards
config = jaxcrnn.TrainConfig(
    model, jaxcrnn.LossConfig("aligned"), jaxcrnn.OptimConfig(warmup=0), AugmentConfig(probability=0.0)
)
state = jaxcrnn.init_state(config, jax.random.key(0), variables=weights)
state, info = jax.jit(jaxcrnn.train_step)(config, state, ours_batch, jax.random.key(1))
their_config = reference.TrainConfig(theirs.config, reference.PRESETS["aligned"], reference.OptimConfig(warmup=0))
their_state = reference.init_state(their_config, theirs)
their_state, their_info = reference.train_step(their_config, their_state, theirs_batch)
compare("loss of the step", info["loss"], their_info["loss"])
compare("centers", state.centers.centers, their_state.centers.centers)
updated = jaxcrnn.convert.to_torch({"params": state.params, "batch_stats": state.batch_stats})
for name, parameter in theirs.state_dict().items():
    compare(name, updated[name], parameter)
