"""Texts that stand in the spec itself."""

from __future__ import annotations

from loopscope.specs.texts.source import ReadTexts, TextSource

IN_PLACE = TextSource("texts", lambda given, _: ReadTexts(given["texts"]), written_as=list)
