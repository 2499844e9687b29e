"""Measure a trained network against data. python apps/calc_metrics.py --help"""

import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs from anywhere, uninstalled

from dnnlib.errors import ConfigError
from dnnlib.files import check_appendable
from dnnlib.options import Options, at_least, nearest, run
from dnnlib.startup import prepare_process

METRICS = Path(__file__).parents[1] / "configs" / "metric"
NAMES = sorted(path.stem for path in METRICS.glob("*.yaml"))
EXAMPLES = """examples:
  python apps/calc_metrics.py --network=output/00000-eg3d-critters-gpus1-batch16-gamma0.0512 --metrics=turning
  python apps/calc_metrics.py --network=NET.safetensors --data=critters --metrics=turning --out=results.jsonl
The metrics' protocols: configs/metric/*.yaml. psi is 1. What the probe says (frechet_probe2k, turning, pose_error,
identity, class_accuracy, label_miou) means something for generators of critters only."""
FINGERPRINT = 100  # items of the data that their hash covers


def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def read_options():
    parser = Options(description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("--network", required=True, metavar="FILE|RUN", help="snapshot, run folder, published file, its name or URL")
    add("--metrics", required=True, type=names, metavar="A,B", help=f"of {', '.join(NAMES)}")
    add("--data", metavar="PATH|NAME", help="what reals are [the training data]")
    add("--seed", type=at_least(0), default=0, help="of latents, items and noise of random fakes [0]")
    add("--batch", type=at_least(1), default=16, help="pictures at a time [16]")
    add("--out", metavar="FILE", help="append the lines of JSON here as well")
    add("--device", help="cpu, cuda, cuda:1 ... [cuda if there is one]")
    args = parser.parse_args()
    for name in args.metrics:
        if name not in NAMES:
            raise ConfigError(f"there is no metric {name}{nearest(name, NAMES)}")
    if args.out is not None:
        args.out = Path(args.out).expanduser()
        check_appendable(args.out)
    return args


def file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_hash(data) -> str:
    """Of the first items' pixels: the same data give the same hash, however they are stored."""
    digest = hashlib.sha256()
    for item in range(min(FINGERPRINT, len(data))):
        digest.update(data.sample(item).image.numpy().tobytes())
    return digest.hexdigest()


def table(rows: list[dict]) -> str:
    """Names and values, aligned."""
    values = [(name, value) for row in rows for name, value in row["results"].items()]
    width = max((len(name) for name, _ in values), default=0)
    return "\n".join(f"{name:<{width}}  {value:10.4f}" for name, value in values)


def facts(net, file: Path, data, measured) -> dict:
    """What a number means nothing without."""
    from metrics.probe import WEIGHTS_SHA256

    return {
        "network": str(file), "network_sha256": file_hash(file), "nimg": net.nimg, "data": data.name,
        "data_items": len(data), f"data_sha256_of_first_{FINGERPRINT}": data_hash(data),
        "cameras_of_fakes": measured.camera_sampling, "psi": 1.0, "seed": measured.seed, "precision": "fp32",
        "resolution": net.G.img_resolution, "device": str(measured.device), "probe_sha256": WEIGHTS_SHA256,
    }  # fmt: skip


def reals_of(config: dict, data: str | None) -> dict:
    """The configuration of what is measured against: the training data, or others in their stead.

    The others have no maps, and the settings of the training data only if they are of their kind.
    """
    from training.data.opening import is_critters

    if not data:
        return config
    settings = config["dataset"]
    if is_critters(data) != is_critters(str(config.get("data"))):
        settings = {"resolution": settings.get("resolution")}
    return {**config, "data": data, "labels": None, "dataset": settings}


def main():
    args = read_options()
    prepare_process()
    import yaml

    from torch_utils.devices import choose_device  # torch comes only now, so that --help is quick
    from training.build import build_dataset
    from training.measuring import append_rows, measure
    from training.programs.measured import MeasuredGenerator
    from training.snapshot import find_snapshot, open_generator

    device = choose_device(args.device)
    file = find_snapshot(args.network)
    net = open_generator(file, str(device))
    data = build_dataset(reals_of(net.config, args.data))
    measured = MeasuredGenerator(
        G=net.G, rig=net.rig, data=data, options=net.G.options_at(net.nimg).still(), seed=args.seed, batch=args.batch,
        device=device,
    )  # fmt: skip
    nodes = {name: yaml.safe_load((METRICS / f"{name}.yaml").read_text(encoding="utf-8")) for name in args.metrics}
    rows = list(measure(nodes, measured, facts(net, file, data, measured)))
    print(table(rows), *map(json.dumps, rows), sep="\n")
    if args.out:
        append_rows(args.out, rows)


if __name__ == "__main__":
    run(main)
