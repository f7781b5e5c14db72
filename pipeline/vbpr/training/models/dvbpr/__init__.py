"""DVBPR (Kang et al. 2017): the image network learns end to end."""
