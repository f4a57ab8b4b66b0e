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

jax.config.update("jax_enable_x64", True)
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
theirs_batch = reference.Batch(*map(torch.from_numpy, batch))


def compare(what, ours, expected):
    ours, expected = np.asarray(ours), np.asarray(expected)
    print(f"{what:28} {abs(ours - expected).max():.1e}, largest value {abs(expected).max():.4g}")


# %% Forward: logits, and the CTC loss of each line
outputs = jaxcrnn.CRNN(model).apply(weights, *ours_batch[:2], train=False)
with torch.no_grad():
    expected = theirs.eval()(*theirs_batch[:2])
compare("logits", outputs.logits, expected.logits)
leaf = expected.logits.requires_grad_()
inputs, expected_inputs = (outputs.lengths, *ours_batch[2:]), (expected.lengths, *theirs_batch[2:])
compare("CTC loss", jaxcrnn.ctc_loss(outputs.logits, *inputs), reference.ctc.ctc_loss(leaf, *expected_inputs).detach())

# %% The gradient of the CTC loss with respect to the logits
reference.ctc.ctc_loss(leaf, *expected_inputs).sum().backward()
compare("gradient", jax.grad(lambda x: jaxcrnn.ctc_loss(x, *inputs).sum())(outputs.logits), leaf.grad)

# %% One training step with center loss: the loss, every parameter and the centers afterwards
optim, augment = jaxcrnn.OptimConfig(warmup=0), jaxcrnn.augment.AugmentConfig(probability=0.0)
config = jaxcrnn.TrainConfig(model, jaxcrnn.LossConfig("aligned"), optim, augment)
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
