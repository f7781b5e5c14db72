"""A model of one's own. Copy this file, change it, and try it: vbpr check my_models.py:TwoLayer"""

import numpy as np
import torch

import vbpr


class TwoLayer:
    """score(u, i) = theta_u . W2 relu(W1 z_i), z_i what a picture shows; BPR, uniform negatives."""

    visual = True  # fit gets features
    reads = {"dim", "epochs", "batch", "lr", "reg_users", "seed"}  # the options that change it
    defaults = {"dim": 32, "epochs": 20, "batch": 128, "lr": 0.01, "reg_users": 0.001}
    space = {"dim": (8, 128, "log"), "lr": (1e-3, 0.1, "log")}  # what `vbpr tune` searches

    def __init__(self, config, checkpoint=None):
        self.config = config

    def fit(self, split, features, images=None):
        c = self.config
        generator = torch.Generator().manual_seed(c.seed)  # no other randomness: the same seed, the same model
        z = features.standardised(np.arange(len(split.item_ids)))  # (I, D) float32
        users, items = map(torch.from_numpy, (np.int64(n) for n in split.train.nonzero()))  # who took what

        def start(rows, columns):
            return (torch.randn(rows, columns, generator=generator) / columns**0.5).requires_grad_()

        w1, w2 = start(z.shape[1], 4 * c.dim), start(4 * c.dim, c.dim)
        theta = start(len(split.user_ids), c.dim)
        adam = torch.optim.Adam([w1, w2, theta], c.lr)
        for epoch in range(1, c.epochs + 1):
            total = 0.0
            for batch in torch.randperm(len(users), generator=generator).split(c.batch):
                others = torch.randint(len(z), (len(batch),), generator=generator)
                taste = theta[users[batch]]
                margin = (taste * (torch.relu((z[items[batch]]) @ w1) - torch.relu(z[others] @ w1)).matmul(w2)).sum(1)
                loss = -torch.nn.functional.logsigmoid(margin).mean() + c.reg_users * taste.square().sum(1).mean()
                adam.zero_grad()
                loss.backward()
                adam.step()
                total += float(loss.detach()) * len(batch)
            vbpr.report_epoch(epoch, loss=total / len(users))  # for --log
        with torch.inference_mode():
            return vbpr.factors_of(split, theta.numpy(), (torch.relu(z @ w1) @ w2).numpy())
