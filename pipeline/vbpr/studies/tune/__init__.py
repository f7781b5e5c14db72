"""`vbpr tune`: hyper-parameters by validation. Uses training, evaluation and what these stand on."""
