"""The whole job on the embedded sample: no hub, no GPU, half a minute; ends with a page of pictures to look at.

run(Path("artifacts/demo"))
"""

import base64
import dataclasses
import html
import io
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .. import sample
from ..answers.nearest import Nearest
from ..base.files import replace_text, replacing
from ..base.hdf5 import read_strings
from ..base.stopping import Stopped, stop_signals
from ..data.dataset import Dataset
from ..data.split import Split
from ..evaluation.evaluate import evaluate
from ..extraction.extract import extract
from ..stores.features.store import FeatureStore
from ..stores.model.factors import Factors
from ..stores.model.lookup import indices_of
from ..training.catalogue import align, prepare
from ..training.configure import configure
from ..training.fit import fit
from ..training.train import train
from .grid import Row, grid
from .photos import Photos
from .terminal import print_metrics


def oracle(split: Split) -> Factors:
    """The simulation's own utilities as factors: the best that any model can do on the sample."""
    with h5py.File(sample.PATH / "oracle.h5", "r") as handle:
        users, items, bias = (np.asarray(handle[name], np.float32) for name in ("users", "items", "bias"))
        user_ids, item_ids = read_strings(handle, "user_ids"), read_strings(handle, "item_ids")
    u, i = (
        indices_of(ids, wanted.tolist(), kind)
        for ids, wanted, kind in ((user_ids, split.user_ids, "user"), (item_ids, split.item_ids, "item"))
    )
    return Factors(
        users[u],
        items[i],
        bias[i],
        split.user_ids,
        split.item_ids,
        split.train,
        split.validation,
        split.test,
        about={"title": "oracle", "data_title": Dataset(sample.PATH).title},
    )


def run(out: Path) -> None:
    """Extract, train, evaluate beside the baselines and the oracle, and write the page.

    Raises:
        Stopped: Ctrl-C or SIGTERM.
    """
    started = time.monotonic()
    data = Dataset.resolve("sample")
    features = out / "lite0.h5"
    with stop_signals() as stopping:  # a signal in the last batch of a step does not stop that step, but the demo
        print("1 of 4  vbpr extract --backbone lite0 --data sample")
        extract(data, "lite0", features)
        end_if(stopping())
        print("2 of 4  vbpr train --features lite0.h5")
        visual = train(data, [features], configure("visual"), out / "lite0.model.h5").factors
        end_if(stopping())
    print("3 of 4  vbpr evaluate")
    store = FeatureStore(features)
    split = prepare(data, [store])
    matrix = align([store], split.item_ids)
    baselines = [fit(split, matrix, configure(name)) for name in ("knn", "popularity", "random")]
    baselines = [dataclasses.replace(f, about=f.about | {"data_title": data.title}) for f in baselines]
    summaries = [evaluate(f).summary() for f in (visual, *baselines, oracle(split))]
    print_metrics(summaries)
    print("4 of 4  pictures")
    page = write_page(out, data, visual, features, summaries)
    print(f"\ndone in {time.monotonic() - started:.0f} s: open {page}\n")
    print("the same on your own data (a folder with interactions.csv and images/):")
    print("  vbpr extract --backbone inception --data FOLDER     (or lite0, or any timm model)")
    print("  vbpr train --features artifacts/inc.h5\n  vbpr evaluate artifacts/inc.model.h5")
    print("  vbpr recommend artifacts/inc.model.h5 --user ID --grid shopper.png")
    print("  vbpr similar artifacts/inc.model.h5 --item ID --grid similar.png")


def end_if(stopped: bool) -> None:
    """
    Raises:
        Stopped: a signal has come.
    """
    if stopped:
        raise Stopped("stopped between two steps; run the same command again to go on")


def write_page(out: Path, data: Dataset, model: Factors, features: Path, summaries: list[dict[str, Any]]) -> Path:
    """A self-contained page: the table, three shoppers, two items and their neighbours."""
    photos, rng, figures = Photos(data), np.random.default_rng(0), []
    for user in rng.choice(len(model.user_ids), 3, replace=False):
        history = model.train[int(user)].indices
        best, _ = model.recommend(int(user), 10)
        rows = [
            Row(f"{model.user_ids[user]} (simulated) took", model.item_ids[history][:10].tolist()),
            Row("recommended", model.item_ids[best].tolist()),
        ]
        figures.append((f"{model.user_ids[user]}.png", f"{model.user_ids[user]} (simulated)", rows))
    near, raw = Nearest.of(out / "lite0.model.h5"), Nearest.of(features)
    for item in rng.choice(raw.item_ids, 2, replace=False):
        rows = [Row("item", [str(item)])]
        for words, index in (("nearest by taste (the model's item vectors)", near), ("nearest by raw features", raw)):
            nearest = [i for i, _ in index.search(index.query_item(str(item)), 10, leave_out=str(item))]
            rows.append(Row(words, nearest))
        figures.append((f"similar-{item}.png", f"Items like {item}", rows))
    sections = [section(out / name, title, rows, photos) for name, title, rows in figures]
    page = out / "index.html"
    replace_text(page, PAGE.format(table=table(summaries), sections="\n".join(sections)))
    return page


def section(path: Path, title: str, rows: list[Row], photos: Photos) -> str:
    """A heading and a picture grid as HTML; the grid is saved as a PNG, too."""
    image = grid(rows, photos)
    with replacing(path) as temporary:
        image.save(temporary, "PNG")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    description = "; ".join(f"{row.heading}: {', '.join(photos.captions(row.item_ids))}" for row in rows)
    return (
        f'<h2>{html.escape(title)}</h2><div class="wide"><img alt="{html.escape(description)}" '
        f'src="data:image/jpeg;base64,{encoded}"></div>'
    )


def table(summaries: list[dict[str, Any]]) -> str:
    """The rows of the table of metrics, as HTML."""
    rows = []
    for s in summaries:
        low, high = s["all"]["auc_interval"]
        parts = "".join(f"<td>{s[p]['auc']:.3f}</td>" if "auc" in s[p] else "<td>-</td>" for p in ("cold", "unseen"))
        rows.append(
            f"<tr><th scope=row>{html.escape(s['model'])}</th><td>{s['all']['auc']:.3f} ({low:.3f}-{high:.3f})</td>"
            f"{parts}<td>{s['all']['ndcg@10']:.3f}</td><td>{s['all']['recall@20']:.3f}</td></tr>"
        )
    return "\n".join(rows)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>vbpr demo</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 100em; margin: 2em auto; padding: 0 1em; color: #222 }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse }} th, td {{ padding: .3em 1em; border-bottom: 1px solid #ccc; text-align: right }}
th[scope=row] {{ text-align: left; font-weight: normal }} img {{ max-width: 100%; min-width: 50em; height: auto }}
</style></head><body>
<h1>vbpr on its embedded sample</h1>
<p>About 1,500 CC0 photographs of clothes, and <strong>simulated</strong> shoppers whose tastes follow category, colour
and pattern. Each shopper's held-out item is ranked against every item not taken; cold items have under five training
interactions, unseen items none. The oracle is the simulation's own utility: no model can do better.</p>
<div class="wide"><table><thead><tr><th scope=col>model</th><th scope=col>AUC (95% interval)</th><th scope=col>cold</th>
<th scope=col>unseen</th><th scope=col>NDCG@10</th><th scope=col>Recall@20</th></tr></thead><tbody>
{table}
</tbody></table></div>
{sections}
</body></html>
"""

__all__ = ["oracle", "run"]
