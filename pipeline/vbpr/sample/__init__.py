"""The embedded sample: CC0 photographs of clothes and the purchases of simulated shoppers, as a canonical folder."""

from pathlib import Path

PATH = Path(__file__).parent
