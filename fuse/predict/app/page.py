"""The page: Gradio's components around a `Trial`. Gradio is imported when the page is built, and asks nobody anything.

On this machine alone: bound to 127.0.0.1, no path but that of an upload is opened, no function can be called but by
the page, and the browser is told to load nothing from elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from configs.schema.predict import AppConfig
from fuse.predict.app import pictures
from fuse.predict.app.trial import LOUDEST_NOISE_DB, MOST_OCCLUDED, NO_NOISE_DB, NOT_OCCLUDED, Trial, Tried

HOST = "127.0.0.1"
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
# Of the fonts that every system has: Gradio's own themes ask Google for theirs.
FONTS, FONTS_MONO = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
# Seconds between looks for leftovers of uploads that were never finished, and how old they are then.
LEFTOVERS = (60, 600)
SECONDS_OF_A_VISIT = 3600
# Gradio's page holds scripts and styles inline, and compiles templates.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; frame-ancestors 'none'; form-action 'self'"
)

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


class NothingFromElsewhere:
    """ASGI middleware: every answer tells the browser what it may load, and to tell nobody where it is."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        """Wrap an application."""
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass everything on, with the two headers."""

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message["headers"] = [*message.get("headers", []), *headers]
            await send(message)

        await self.app(scope, receive, with_policy)


class Page:
    """What the page's events do: components' values in, components' values out."""

    def __init__(self, trial: Trial) -> None:
        """`trial`: the run and its limits."""
        self.trial = trial

    def upload(self, file: str | None, statement: str, snr_db: float, occluded: float) -> tuple[Any, ...]:
        """A file has come: read and predict it. Its component is emptied, since the file is gone."""
        if file is None:
            return self._nothing("no file came")
        try:
            media = self.trial.read_upload(file)
            return self._told(self.trial.look(Path(file).name, media, statement, snr_db, occluded))
        except ValueError as error:
            return self._nothing(str(error))

    def example(self, name: str, snr_db: float, occluded: float) -> tuple[Any, ...]:
        """A clip of the corpus was chosen; what is said in it is known."""
        try:
            media = self.trial.read_example(name)
            return self._told(self.trial.look(name, media, self.trial.statement_of(name), snr_db, occluded))
        except ValueError as error:
            return self._nothing(str(error))

    def again(self, tried: Tried | None, statement: str, snr_db: float, occluded: float) -> tuple[Any, ...]:
        """A slider was moved: the same clip once more."""
        if tried is None:
            return self._nothing("choose a clip first")
        try:
            return self._told(self.trial.look(tried.name, tried.read, statement, snr_db, occluded))
        except ValueError as error:
            return (tried, *self._nothing(str(error))[1:])

    def windows(self, tried: Tried | None) -> str:
        """What takes longer, after the answer is there."""
        return "" if tried is None else pictures.below_caption(pictures.contributions(tried, self.trial.windows(tried)))

    def _told(self, tried: Tried) -> tuple[Any, ...]:
        return (
            tried,
            *map(
                pictures.below_caption,
                (
                    pictures.answer(tried),
                    pictures.heard(tried),
                    pictures.given(tried),
                    pictures.contributions(tried),
                ),
            ),
        )

    def _nothing(self, words: str) -> tuple[Any, ...]:
        return (None, pictures.below_caption(pictures.problem(words)), "", "", "")


def quiet_gradio(uploads: Path) -> Any:
    """Import Gradio so that it measures nothing, asks nobody, and keeps uploads in that folder.

    Raises:
        ValueError: it is not installed, and how to.
    """
    os.environ.update({**QUIET, "GRADIO_TEMP_DIR": str(uploads)})
    try:
        import gradio
    except ImportError as error:
        raise ValueError(
            f"no gradio here ({error}); pip install --no-deps -r requirements-app.txt (make app does)"
        ) from error
    return gradio


def build(gr: Any, trial: Trial) -> Any:
    """The page itself, not yet served."""
    page, hidden = Page(trial), {"api_visibility": "private"}
    with gr.Blocks(title="TriFuse", analytics_enabled=False, delete_cache=LEFTOVERS) as blocks:
        gr.Markdown(
            f"## TriFuse: {Path(trial.config.run)}\nA clip is deleted once it is read; nothing leaves this machine."
        )
        tried = gr.State(time_to_live=SECONDS_OF_A_VISIT)
        with gr.Row():
            with gr.Column():
                sources = _sources(gr)
                example = gr.Dropdown(
                    list(trial.example_names.items()),
                    value=None,
                    label="or an example",
                    visible=bool(trial.example_names),
                )
                statement = gr.Textbox(
                    label="What is said (this run has no recogniser)", visible=trial.reads_statements
                )
                sliders = _sliders(gr)
            with gr.Column():
                told = [
                    gr.HTML(label=name, show_label=True, container=True)
                    for name in ("Emotion", "Words", "As the encoders get it")
                ]
        told.append(gr.HTML(label="Contributions", show_label=True, container=True))
        shown = [tried, *told]
        events = [
            *(
                source.input(page.upload, [source, statement, *sliders], shown, **hidden).then(
                    lambda: None, None, source, **hidden
                )
                for source in sources
            ),
            example.input(page.example, [example, *sliders], shown, **hidden).then(
                trial.statement_of, example, statement, **hidden
            ),
            *(
                moved(page.again, [tried, statement, *sliders], shown, trigger_mode="always_last", **hidden)
                for moved in (sliders[0].release, sliders[1].release, statement.submit)
            ),
        ]
        for event in events:
            event.then(page.windows, tried, told[-1], **hidden)
    return blocks


def _sources(gr: Any) -> list[Any]:
    with gr.Tab("Film"):
        # Not mirrored: Gradio would have FFmpeg's program turn it round.
        film = gr.Video(
            sources=["upload", "webcam"],
            include_audio=True,
            webcam_options=gr.WebcamOptions(mirror=False),
            label="Film",
        )
    with gr.Tab("Sound"):
        sound = gr.Audio(sources=["upload", "microphone"], type="filepath", label="Sound")
    return [film, sound]


def _sliders(gr: Any) -> list[Any]:
    noise = gr.Slider(
        LOUDEST_NOISE_DB,
        NO_NOISE_DB,
        NO_NOISE_DB,
        step=1,
        label=f"Speech over white noise, dB ({NO_NOISE_DB}: no noise)",
    )
    block = gr.Slider(NOT_OCCLUDED, MOST_OCCLUDED, NOT_OCCLUDED, step=1, label="Picture covered, % of its area")
    return [noise, block]


def serve(gr: Any, blocks: Any, config: AppConfig, wait: bool = True) -> str:
    """Serve the page; returns its address, at once or (`wait`) when it has ended.

    Raises:
        ValueError: the port is taken.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    guards = [Middleware(NothingFromElsewhere), Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])]
    try:
        _, address, _ = blocks.queue(default_concurrency_limit=1, max_size=8).launch(
            server_name=HOST,
            server_port=config.port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=f"{config.max_megabytes:g}mb",
            allowed_paths=[],
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            state_session_capacity=16,
            app_kwargs={"middleware": guards, "docs_url": None, "redoc_url": None, "openapi_url": None},
            theme=gr.themes.Base(font=FONTS, font_mono=FONTS_MONO),
            css=pictures.CSS,
        )
    except OSError as error:
        raise ValueError(
            f"port {config.port} is not free ({error}); name another, or leave port out for the first that is free"
        ) from error
    print(f"{address}   (Ctrl-C ends it)", flush=True)
    if wait:
        blocks.block_thread()
    return str(address)
