"""Measure how fast a configuration generates and trains, and the memory it takes. python apps/benchmark.py --help"""

import json
import shlex
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from anywhere, uninstalled

from dnnlib.errors import ConfigError
from dnnlib.files import whole_file
from dnnlib.options import Options, at_least, boolean, run
from dnnlib.startup import prepare_process

EXAMPLES = """examples:
  python apps/benchmark.py model=eg3d spec=tiny
  python apps/benchmark.py model=stylegan2 data=~/faces.zip batch=8 --threads=2 --repeats=9 --markdown
KEY=VALUE are the keys of training: python run_train.py --help lists them. Times are wall-clock: median, minimum and
maximum of the repeats, after a warm-up. Seconds per 1,000 images count every phase as seldom as training runs it; they
leave out pictures, snapshots and states."""
NO_PLACE = {"resume_run": "a benchmark takes keys, not a run folder", "dry_run": "a benchmark writes nothing anyway"}
HEAD = ("", "median", "min", "max", "unit", "s per 1,000 images")


def read_options(argv):
    """The options, and the words that belong to the configuration."""
    usage = "python apps/benchmark.py [KEY=VALUE ...] [--option=VALUE ...]"
    parser = Options(description=__doc__, epilog=EXAMPLES, usage=usage)
    add = parser.add_argument
    add("--threads", type=at_least(1), metavar="N", help="threads of the CPU [what torch chooses]")
    add("--repeats", type=at_least(1), default=5, metavar="N", help="how often everything is timed [5]")
    add("--nimg", type=at_least(0), metavar="N", help="images seen so far, as schedules are to believe [all of kimg]")
    add("--markdown", type=boolean, nargs="?", const=True, default=False, metavar="BOOL", help="print a page's table")
    add("--json", metavar="FILE", help="write everything here as well, with the seconds of every repeat")
    words = [arg for arg in argv if arg.startswith("~") or ("=" in arg and not arg.startswith("-"))]
    args = parser.parse_args([arg for arg in argv if arg not in words])
    if args.json and not Path(args.json).expanduser().parent.is_dir():
        raise ConfigError(f"--json={args.json} cannot be written: its folder does not exist; make it first")
    return args, words


def measure(args, words):
    """All facts and figures, as JSON takes them."""
    import torch  # only now, so that --help is quick

    from training import timing
    from training.cli.main import prepared
    from training.cli.overrides import read
    from training.loop import memory_in_words
    from training.ranks import together

    if args.threads:
        torch.set_num_threads(args.threads)
    config, dataset = prepared(read(words).overrides)
    for key, why in NO_PLACE.items():
        if config[key]:
            raise ConfigError(f"{key}={config[key]} has no place here: {why}")
    nimg = round(config["kimg"] * 1000) if args.nimg is None else args.nimg
    with memory_in_words():
        job = timing.open_job(config, dataset, nimg)
        generation = timing.time_generation(job, timing.Stopwatch(job.device), args.repeats)
        training, peak = together(timing.try_training, config, dataset, nimg, args.repeats)
    return {
        "command": shlex.join(["python", "apps/benchmark.py", *sys.argv[1:]]), **timing.facts(job),
        "repeats": args.repeats, "warm_up": timing.WARM_UP, "nimg": nimg,
        "generation": [{"what": t.name, "images": t.images, "seconds": t.seconds, "images_per_s": t.rate}
                       for t in generation],
        "further_views": any(t.name == timing.VIEWS for t in generation),
        "training": [{"what": t.name, "every": t.every, "seconds": t.seconds, "s_per_kimg": t.per_kimg}
                     for t in training],
        "s_per_kimg": sum(t.per_kimg for t in training),
        "peak_memory_gb": peak,
    }  # fmt: skip


def number(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def rows(found):
    """The cells under HEAD."""
    for entry in found["generation"]:
        seconds = entry["seconds"]
        rates = (entry["images"] / s for s in (median(seconds), max(seconds), min(seconds)))
        yield entry["what"], *map(number, rates), "images/s", ""
    for entry in found["training"]:
        seconds = entry["seconds"]
        often = "" if entry["every"] == 1 else f", every {entry['every']} iterations"
        spread = map(number, (median(seconds), min(seconds), max(seconds)))
        yield entry["what"] + often, *spread, "s", number(entry["s_per_kimg"])
    yield "training together", "", "", "", "", number(found["s_per_kimg"])
    work = [entry["s_per_kimg"] for entry in found["training"] if entry["what"] != "data"]
    yield "without waiting for data", "", "", "", "", number(sum(work))
    yield "peak memory", number(found["peak_memory_gb"]), "", "", "GB", ""
    for name, count in found["parameters"].items():
        yield f"parameters of {name}", f"{count:,}", "", "", "", ""


def table(found, markdown):
    """The rows in columns."""
    cells = [HEAD, *rows(found)]
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        return "\n".join([lines[0], "|---|---:|---:|---:|---|---:|", *lines[1:]])
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEAD))]
    sides = "<>>><>"
    padded = [[f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)] for row in cells]
    return "\n".join("  ".join(row).rstrip() for row in padded)


def facts(found):
    """Of what, on what and how, as sentences."""
    groups = [f"{key}={found['choices'][key]}" for key in ("experiment", "model", "spec") if found["choices"].get(key)]
    yield (
        f"{' '.join(groups)} data={found['data']}: {found['resolution']} px, batch {found['batch']} in parts of "
        f"{found['batch_gpu']}, ranks: {found['gpus']}, {found['precision']}, data workers: {found['workers']}, "
        f"schedules at {found['nimg']:,} images."
    )
    yield (
        f"Commit {found['commit']}; {found['machine']}; threads: {found['threads']}; torch {found['torch']}; "
        f"operators: {found['operators']}; repeats: {found['repeats']} after {found['warm_up']} to warm up."
    )
    if not found["generation"]:
        yield "No net of this configuration makes images, so only training was timed."
    elif not found["further_views"]:
        yield "This model makes flat images, so there are no further views of a scene to time."


def page(found, markdown):
    """All that is printed."""
    command = f"`{found['command']}`" if markdown else found["command"]
    return ("\n\n" if markdown else "\n").join([command, *facts(found), table(found, markdown)])


def main():
    args, words = read_options(sys.argv[1:])
    prepare_process()
    found = measure(args, words)
    print(page(found, args.markdown))
    if args.json:
        with whole_file(Path(args.json).expanduser()) as draft:
            draft.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
