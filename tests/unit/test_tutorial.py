"""The tutorial up to where a model is needed; the rest is followed in tests/acceptance."""

from tests.tutorial import TUTORIAL, blocks_of, paste


def test_the_part_that_needs_no_model_works_as_the_page_says(tmp_path):
    page = TUTORIAL.read_text(encoding="utf-8")
    blocks = blocks_of(page.partition("\n## 3.")[0])
    paste(blocks, tmp_path)
    assert len(blocks) > 6 and "experiment/japan created (dry run)" in blocks[4].output
    assert any(block.shown for block in blocks)
    for block in blocks:
        assert block.found_status == block.status, f"{block.text}\n{block.output}"
        assert block.shown in block.output and "Traceback" not in block.output
