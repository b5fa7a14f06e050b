"""The page of ``faceloom app``: a portrait, a driving video, a look at both before the wait, and the result.

The server itself decodes nothing that is uploaded: :mod:`animation.app_work` does, in processes apart.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from animation.animate_config import AnimateConfig
from animation.apart import Apart
from animation.app_gate import Gate
from animation.app_work import AnimateAsk, Maker, Preview, PreviewAsk, Previewer
from faceloom.errors import UserError
from faceloom.progress import duration
from faceloom.scratch import Scratch

STEPS = (5, 10, 20, 25, 50)
_KEPT_S = 3600
_REMEDY = re.compile(
    r";? ?(give another (file|image)|let it be --stitch auto, or|give a larger picture of it) with --\S+|with --\S+"
)
"""What the command's errors say of its options."""
_CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
.told p { margin: 4px 2px; }
.amiss p { color: #b3261e; font-weight: 600; }
footer { display: none !important; }
"""


class Studio:
    """What the page's events do: the two processes, and the folder that their files are in."""

    def __init__(self, checkpoint: str, config: AnimateConfig, folder: Path) -> None:
        self.folder = folder
        self._config = config
        self._previewer: Apart[PreviewAsk, Preview] = Apart(Previewer, folder, deadline_s=config.app.preview_deadline_s)
        self._maker: Apart[AnimateAsk, Any] = Apart(Maker, checkpoint, config, folder, deadline_s=config.app.deadline_s)

    def close(self) -> None:
        """End the processes."""
        self._previewer.close()
        self._maker.close()

    def preview(self, kind: Any, upload: dict[str, Any] | None, stitch: str) -> tuple[str | None, str, bool]:
        """Picture, text and whether the file can be animated, of an upload as Gradio describes it."""
        if upload is None:
            return None, "", False
        path = Path(upload["path"])
        try:
            found = self._previewer.ask(PreviewAsk(kind, path, self._configured(stitch=stitch)))
        except UserError as error:
            return None, _for_page(str(error), {path: upload}), False
        return str(found.picture), found.told, True

    def animate(
        self,
        portrait: dict[str, Any],
        driving: dict[str, Any],
        steps: int,
        guidance: float,
        seed: int,
        stitch: str,
        progress: Any,
    ) -> tuple[str, str, str]:
        """Paths of the video beside what it is made from and of the video itself, and a text; ``UserError`` as it comes."""
        self._sweep()
        files = {Path(portrait["path"]): portrait, Path(driving["path"]): driving}
        config = self._configured(stitch=stitch, steps=int(steps), guidance=float(guidance), seed=int(seed))
        progress(0.0, desc="loading the model")
        try:
            made = self._maker.ask(
                AnimateAsk(Path(portrait["path"]), Path(driving["path"]), config),
                lambda doing, done, of: progress((done, of), desc=doing, unit="steps"),
            )
        except UserError as error:
            raise UserError(_for_page(str(error), files)) from None
        notes = "".join(f" Note: {_for_page(note, files)}." for note in made.notes)
        told = (
            f"{made.frames} frames, {made.duration_s:.1f} s at {made.fps} a second, {made.width}×{made.height} px, "
            f"{'with' if made.sound else 'without'} sound; made in {duration(made.took_s)} with seed {made.seed}.{notes}"
        )
        return str(made.side_by_side), str(made.out), told

    def _configured(self, *, stitch: str, **settings: Any) -> AnimateConfig:
        """The configuration with what the page sets; what it cannot have offered is refused by name."""
        tree = self._config.model_dump() | settings
        tree["portrait"] |= {"stitch": stitch}
        try:
            return AnimateConfig.model_validate(tree)
        except ValueError:
            raise UserError("these settings are none that the page offers") from None

    def _sweep(self) -> None:
        """Remove what was made an hour ago; Gradio keeps copies of its own of what it still shows."""
        for path in self.folder.iterdir():
            if path.is_file() and time.time() - path.stat().st_mtime > _KEPT_S:
                path.unlink(missing_ok=True)


def page(studio: Studio, config: AnimateConfig) -> Any:
    """The page as Gradio's blocks."""
    import gradio as gr

    limits = config.app
    with gr.Blocks(
        title="Faceloom", analytics_enabled=False, delete_cache=(_KEPT_S, _KEPT_S), fill_width=False
    ) as blocks:
        gr.Markdown(
            "# Faceloom\nA portrait moves as the person in a video does. "
            f"Files of up to {limits.max_mb} MB; videos of up to {limits.max_seconds:g} s."
        )
        usable = {"portrait": gr.State(False), "driving": gr.State(False)}
        inputs: dict[str, Any] = {}
        seen: dict[str, tuple[Any, Any]] = {}
        with gr.Row(equal_height=True):
            with gr.Column():
                inputs["portrait"] = gr.Image(
                    label="Portrait",
                    sources=["upload"],
                    type="filepath",
                    image_mode=None,
                    height=300,
                    elem_id="portrait",
                )
            with gr.Column():
                inputs["driving"] = gr.Video(label="Driving video", sources=["upload"], height=300, elem_id="driving")
            with gr.Column():
                steps = gr.Dropdown(
                    [*STEPS],
                    value=config.steps if config.steps in STEPS else 10,
                    label="Steps",
                    info="More take longer",
                )
                guidance = gr.Slider(
                    1.0, 8.0, config.guidance, step=0.5, label="Guidance", info="How far the face leads"
                )
                seed = gr.Number(config.seed, precision=0, minimum=0, maximum=2**31 - 1, label="Seed")
                stitch = gr.Radio(
                    ["auto", "always", "never"],
                    value=config.portrait.stitch,
                    label="Put back into the picture",
                    info="auto: where the face is small",
                )
        with gr.Row():
            for kind, label in (("portrait", "Face of the portrait"), ("driving", "Face of the driver")):
                with gr.Column():
                    picture = gr.Image(
                        label=label, interactive=False, height=320, buttons=["fullscreen"], elem_id=f"{kind}-seen"
                    )
                    told = gr.Markdown(elem_classes=["told"], elem_id=f"{kind}-told")
                    seen[kind] = picture, told
        button = gr.Button("Animate", variant="primary", interactive=False, elem_id="animate")
        result = gr.Video(
            label="Portrait | driver | result", interactive=False, autoplay=True, height=340, elem_id="result"
        )
        with gr.Row():
            made = gr.Markdown(elem_classes=["told"], elem_id="made")
            download = gr.DownloadButton("Download the result alone", interactive=False, elem_id="download")

        def look(kind: str, upload: dict[str, Any] | None, stitched: str) -> tuple[Any, Any, bool]:
            shown, text, fine = studio.preview(kind, upload, stitched)
            classes = ["told"] if fine or not text else ["told", "amiss"]
            return shown, gr.Markdown(text, elem_classes=classes), fine

        def look_at_portrait(upload: Any, stitched: str) -> Any:
            return look("portrait", upload, stitched)

        def look_at_driver(upload: Any, stitched: str) -> Any:
            return look("driving", upload, stitched)

        def ready(portrait: bool, driving: bool) -> Any:
            return gr.Button(interactive=portrait and driving)

        def make(
            portrait: Any,
            driving: Any,
            steps: int,
            guidance: float,
            seed: int,
            stitched: str,
            progress: Any = gr.Progress(),  # noqa: B008 - how Gradio is told of it
        ) -> Any:
            try:
                beside, alone, text = studio.animate(portrait, driving, steps, guidance, seed, stitched, progress)
            except UserError as error:
                raise gr.Error(str(error), duration=None, print_exception=False) from None
            return beside, text, gr.DownloadButton(value=alone, interactive=True)

        hidden: dict[str, Any] = {"preprocess": False, "api_visibility": "private"}
        looks = {"portrait": look_at_portrait, "driving": look_at_driver}
        for kind, work in looks.items():
            triggers = [inputs[kind].change, *([stitch.change] if kind == "portrait" else [])]
            gr.on(
                triggers,
                work,
                [inputs[kind], stitch],
                [*seen[kind], usable[kind]],
                concurrency_id="preview",
                concurrency_limit=1,
                show_progress="minimal",
                trigger_mode="always_last",
                **hidden,
            ).then(ready, list(usable.values()), button, show_progress="hidden", **hidden)
        button.click(
            make,
            [inputs["portrait"], inputs["driving"], steps, guidance, seed, stitch],
            [result, made, download],
            concurrency_id="animate",
            concurrency_limit=1,
            show_progress="full",
            show_progress_on=[result],
            **hidden,
        )
    return blocks


@contextmanager
def serving(checkpoint: str, config: AnimateConfig, host: str, port: int) -> Iterator[str]:
    """The app at work until the block ends; gives its address. Raises :class:`UserError` if it cannot be started."""
    with Scratch(None) as scratch:
        _set_up_gradio(scratch.folder)
        try:
            import gradio as gr
            from starlette.middleware import Middleware
        except ImportError:
            raise UserError(
                "the app needs Gradio, which is not installed; get it with: pip install 'faceloom[app]'"
            ) from None
        made = scratch.folder / "made"
        made.mkdir()
        studio = Studio(checkpoint, config, made)
        try:
            blocks = page(studio, config).queue(api_open=False, max_size=config.app.waiting)
            try:
                _, address, _ = blocks.launch(
                    server_name=host,
                    server_port=port,
                    share=False,
                    quiet=True,
                    prevent_thread_lock=True,
                    max_file_size=config.app.max_mb * 1_000_000,
                    allowed_paths=[str(made)],
                    ssr_mode=False,
                    footer_links=[],
                    theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                    css=_CSS,
                    app_kwargs={"middleware": [Middleware(Gate)]},
                )
            except OSError as error:
                # Gradio tells of a taken port at length, with settings of its own as the remedy.
                told = "the port is taken" if "empty port" in str(error) else error
                raise UserError(f"cannot serve at {host}:{port}: {told}; choose another --host or --port") from None
            try:
                yield str(address)
            finally:
                blocks.close(verbose=False)
        finally:
            studio.close()


def _set_up_gradio(folder: Path) -> None:
    """Before it is imported: no telemetry, and uploads in ``folder``, which is removed with this process."""
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
    }


def _for_page(message: str, files: dict[Path, dict[str, Any]]) -> str:
    """An error of the command as one of the page: files by the names that they were uploaded with, no options."""
    for path, upload in files.items():
        message = message.replace(str(path), str(upload.get("orig_name") or path.name))
    return _REMEDY.sub("", message).strip().rstrip(";")
