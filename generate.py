"""Pictures and films from a trained network. python generate.py --help"""

from dataclasses import replace
from pathlib import Path

from dnnlib.errors import ConfigError
from dnnlib.limits import check_numbers
from dnnlib.options import Options, at_least, boolean, pair, run, seeds, size
from dnnlib.startup import prepare_process

PROGRAMS = sorted(path.stem for path in Path(__file__).parent.glob("configs/program/*.yaml"))
EXAMPLES = """examples:
  python generate.py --outdir=out --seeds=0-7 --trunc=0.7 --network=output/00000-eg3d-critters-gpus1-batch16-gamma0.0512
  python generate.py --outdir=out --seeds=0-7 --network=NET.safetensors --render-program=rotation_camera
  python generate.py --outdir=out --seeds=0-7 --grid=4x2 --network=NET --render-program=orbit --program-option frames=60
Without a render program: one still per seed. The programs' options: configs/program/*.yaml. Angles in radians. What a
network is told about the camera (its conditioning) is always its rig's mean camera; only the rendering camera moves.
Shapes: scene units, y up, the subject faces +z. The surface lies where the density is a third of what it is where light
from the front has lost half of itself (the median over lines of sight through the middle of the subject). Its largest
connected part is kept, without hollows. Time grows as N^3, files as N^2; EG3D's own program has N=512."""


def read_options():
    parser = Options(description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    switch = {"type": boolean, "nargs": "?", "const": True, "default": False, "metavar": "BOOL"}
    settings = {"type": pair, "action": "append", "default": []}
    add("--network", required=True, metavar="FILE|RUN", help="snapshot, run folder, published file, its name or URL")
    add("--outdir", required=True, metavar="DIR", help="where to write; made if missing")
    add("--seeds", type=seeds, required=True, help="such as 0,3,5-9")
    add("--trunc", type=float, default=1.0, metavar="PSI", help="truncation psi; 1 is none [1]")
    add("--trunc-cutoff", type=at_least(0), metavar="N", help="truncate only the first N layers [all]")
    add("--class", type=int, dest="label", metavar="K", help="class of a conditional network")
    add("--noise-mode", choices=["const", "random", "none"], default="const", help="per-pixel noise [const]")
    add("--render-program", metavar="NAME", help=f"make films: {', '.join(PROGRAMS)}")
    add("--program-option", **settings, metavar="KEY=VALUE", help="change the program; repeatable")
    add("--n-steps", type=at_least(1), metavar="N", help="frames; short for --program-option frames=N")
    add("--nrr", type=at_least(1), metavar="N", help="rays along a side of the volume-rendered image [the network's]")
    add("--grid", type=size, metavar="WxH", help="one film with the seeds side by side")
    add("--no-video", **switch, help="only the frames")
    add("--depth", **switch, help="also depth (stills: and the raw image)")
    add("--shapes", **switch, help="stills: also the surface of each seed, for 3D programs")
    add("--shape-res", type=at_least(1), metavar="N", help="densities along a side of the cube looked into [256]")
    add("--shape-format", metavar="LIST", help="ply, glb (meshes with colours), mrc (the densities) [ply]")
    add("--shape-level", type=float, metavar="D", help="density of the surface [by the rule below, for each seed]")
    add("--ops", choices=["auto", "torch", "ninja", "strict"], default="auto", help="torch: none compiled [auto]")
    add("--device", help="cpu, cuda, cuda:1 ... [cuda if there is one]")
    args = parser.parse_args()
    check_numbers({"trunc": args.trunc, "nrr": args.nrr}, "")
    if not args.outdir:
        raise ConfigError("--outdir= is empty: name a folder; it is made if missing")
    return args


def open_studio(args):
    """The network, and how the options want its seeds shown."""
    from torch_utils.devices import choose_device
    from torch_utils.ops import native
    from training.contracts import Condition
    from training.programs.seeds import class_label, seed_codes
    from training.programs.studio import Studio
    from training.snapshot import open_generator

    device = choose_device(args.device)
    native.choose(args.ops, device)
    print(native.in_words(device.type))
    net = open_generator(args.network, str(device))
    label = class_label((net.config.get("dataset") or {}).get("label_dim") or 0, args.label)
    told = Condition(camera=net.rig.mean, label=label)
    still = net.G.options_at(net.nimg).still()
    return Studio(
        G=net.G,
        rig=net.rig,
        codes=lambda seed: seed_codes(net.G, seed, told, args.trunc, args.trunc_cutoff, device),
        options=replace(still, noise=args.noise_mode, resolution=args.nrr or still.resolution),
        device=device,
    )


def main():
    args = read_options()
    prepare_process()
    from training.build import build  # torch comes only now, so that --help is quick
    from training.programs.load import load_program
    from training.programs.shapes import read_shapes, write_shapes
    from training.programs.studio import write_films, write_stills

    steps = [("frames", str(args.n_steps))] if args.n_steps else []
    program = None
    if args.render_program:
        program = build(load_program(args.render_program, [*args.program_option, *steps]), where=args.render_program)
    elif args.program_option or steps or args.grid:
        raise ConfigError("--program-option, --n-steps and --grid belong to a film: add --render-program=orbit")
    given = {"resolution": args.shape_res, "formats": args.shape_format, "level": args.shape_level}
    shapes = read_shapes(args.shapes, program is None, **given)
    studio = open_studio(args)
    outdir = Path(args.outdir).expanduser()
    if program is None:
        made = write_shapes(studio, args.seeds, outdir, shapes) if shapes else ()
        write_stills(studio, args.seeds, outdir, args.depth)
        for shape in made:
            print(shape, flush=True)
        print(f"Pictures of {len(args.seeds)} seeds are in {outdir}")
        return
    video = not args.no_video
    films = write_films(studio, program, args.render_program, args.seeds, outdir, args.grid, video, args.depth)
    if video and any(film.suffix != ".mp4" for film in films):
        print("ffmpeg was not found, so the films are animated WebP; for MP4: pip install imageio-ffmpeg")
    elif video and not films:
        print("ffmpeg was not found, so there are only frames; for films: pip install imageio-ffmpeg")
    print(f"Frames are in {outdir}" + "".join(f"\nFilm: {film}" for film in films))


if __name__ == "__main__":
    run(main)
