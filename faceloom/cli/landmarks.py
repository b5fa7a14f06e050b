"""``faceloom landmarks``: videos of landmarks."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from faceloom.cli.options import DatasetFolder
from faceloom.location import local_path

group = typer.Typer(
    name="landmarks",
    help="Videos of landmarks, to look at.",
    epilog="Example: faceloom landmarks render dataset talking_man.mp4 --out man.mp4",
    no_args_is_help=True,
)


VideoOut = Annotated[Path, typer.Option("--out", metavar="FILE", parser=local_path, help="MP4 file to write.")]
DrawingStyle = Annotated[str, typer.Option("--style", help="a1_3d, a1_2d or fye: whose inference code it looks like.")]
Smoothed = Annotated[bool, typer.Option("--smooth", help="Take jitter out of the landmarks; also softens blinks.")]


@group.command("render", epilog="Example: faceloom landmarks render dataset talking_man.mp4 --out talking_man.mp4")
def landmarks_render(
    dataset: DatasetFolder,
    clip: Annotated[str, typer.Argument(help="Clip id or source key of a kept clip.")],
    out: VideoOut,
    mode: Annotated[
        Literal["self", "relative", "cross"],
        typer.Option(help="The clip's own face; its motion on one of its frames; its motion on another clip's face."),
    ] = "self",
    reference: Annotated[
        str | None,
        typer.Option(metavar="FRAME|CLIP", help="relative: a frame's number; cross: another clip's id or source key."),
    ] = None,
    style: DrawingStyle = "a1_3d",
    smoothed: Smoothed = False,
) -> None:
    """Draw a sample's landmarks beside its frames."""
    from curation.landmark_videos import render_clip

    render_clip(dataset, clip, out, mode, reference, style, smoothed)
    typer.echo(out)


@group.command(
    "retarget", epilog="Example: faceloom landmarks retarget --portrait me.jpg --driving talk.mp4 --out me_talking.mp4"
)
def landmarks_retarget(
    portrait: Annotated[Path, typer.Option(help="Image of the face that is to move.")],
    driving: Annotated[Path, typer.Option(help="Video of one person, whose motion it is; sampled at 12 fps.")],
    out: VideoOut,
    style: DrawingStyle = "a1_3d",
    smoothed: Smoothed = False,
    backend: Annotated[
        Literal["mediapipe", "smirk"], typer.Option(help="smirk needs files that you supply: `faceloom models list`.")
    ] = "mediapipe",
) -> None:
    """Draw the landmarks of a portrait moving as the person in a video does."""
    from curation.landmark_videos import retarget

    retarget(portrait, driving, out, style, smoothed, backend, typer.echo)
    typer.echo(out)
