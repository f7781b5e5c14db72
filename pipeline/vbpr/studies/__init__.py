"""Studies of several trainings: methods compared under one protocol, hyper-parameters searched. Uses training,
extraction, evaluation and what these stand on."""
