"""`vbpr compare`: several methods under one protocol. Uses training, extraction, evaluation and what these stand on."""
