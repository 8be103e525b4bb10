"""Progress and output of results."""

from __future__ import annotations

import io
import sys
import threading

import pytest

import hpcremote
from hpcremote.client.client import Client
from hpcremote.client.progress import TextBar, in_notebook, progress_bar
from hpcremote.client.view import DirectView
from tests.client.support import FakeLink

CODE = "import sys; print('out', me); print('err', me, file=sys.stderr)"


@pytest.fixture
def two(rc: Client) -> DirectView:
    view = rc[:2]
    view.scatter("me", [0, 1], flatten=True, block=True)
    return view


def test_outputs_by_type_and_by_engine(two: DirectView, capsys: pytest.CaptureFixture[str]) -> None:
    ar = two.execute(CODE)
    ar.display_outputs()
    shown = capsys.readouterr()
    assert shown.out == "[stdout:0]\nout 0\n[stdout:1]\nout 1\n"
    assert shown.err == "[stderr:0]\nerr 0\n[stderr:1]\nerr 1\n"
    ar.display_outputs(groupby="order")
    assert capsys.readouterr() == shown
    both = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", both)
        patch.setattr(sys, "stderr", both)
        ar.display_outputs(groupby="engine")
    assert both.getvalue() == "[stdout:0]\nout 0\n[stderr:0]\nerr 0\n[stdout:1]\nout 1\n[stderr:1]\nerr 1\n"
    ar.display_outputs(result_only=True)
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="groupby is"):
        ar.display_outputs(groupby="size")


def test_the_output_of_one_engine_has_no_heading(two: DirectView, capsys: pytest.CaptureFixture[str]) -> None:
    one = two.client[1]
    one.execute(CODE).display_outputs()
    assert capsys.readouterr().out == "out 1\n"


def test_output_streams_as_it_comes(
    two: DirectView, link: FakeLink, capsys: pytest.CaptureFixture[str]
) -> None:
    link.pause()
    ar = two.execute("print('end', me)")
    link.prints(0, "before\n")
    with ar.stream_output():
        assert capsys.readouterr().out == "[stdout:0]\nbefore\n"
        link.prints(1, "half ")
        assert capsys.readouterr().out == "[stdout:1]\nhalf "
        link.prints(1, "line\n")
        assert capsys.readouterr().out == "line\n"
        link.prints(0, "unfinished")
        link.prints(1, "!\n", 2)
        shown = capsys.readouterr()
        assert (shown.out, shown.err) == ("[stdout:0]\nunfinished", "\n[stderr:1]\n!\n")
        link.run_all()
        assert capsys.readouterr().out == "[stdout:0]\nend 0\n[stdout:1]\nend 1\n"
    assert ar.stdout == ["before\nunfinishedend 0\n", "half line\nend 1\n"]


def test_a_stream_of_one_part_shows_only_that(
    two: DirectView, link: FakeLink, capsys: pytest.CaptureFixture[str]
) -> None:
    link.pause()
    ar = two.execute("1")
    with ar.split()[1].stream_output():
        link.prints(0, "zero\n")
        link.prints(1, "one\n")
    assert capsys.readouterr().out == "[stdout:1]\none\n"
    link.prints(1, "after\n")
    assert capsys.readouterr().out == ""


def test_what_cannot_be_printed_is_raised_at_the_end(two: DirectView, link: FakeLink) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError("gone")

    link.pause()
    ar = two.execute("1")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(BrokenPipeError), ar.stream_output():
        patch.setattr(sys, "stdout", Broken())
        link.prints(0, "x\n")
        link.prints(0, "y\n")
    link.resume()
    assert ar.get() == [None, None]


def test_waiting_with_a_bar(view: DirectView, link: FakeLink, capsys: pytest.CaptureFixture[str]) -> None:
    ar = view.map_async(abs, range(10))
    ar.wait_interactive()
    assert ar.ready()
    shown = capsys.readouterr().err
    assert shown.startswith("abs [##############################] 10/10 ") and shown.endswith(" s\n")


def test_waiting_with_a_bar_ends_when_it_is_told_to(
    view: DirectView, link: FakeLink, capsys: pytest.CaptureFixture[str]
) -> None:
    link.pause()
    ar = view.apply_async(divmod, 1, 0)
    ar.wait_interactive(interval=0.01, timeout=0.05)
    assert "0/4" in capsys.readouterr().err
    link.step_engine(2)
    ar.wait_interactive(interval=0.01, return_when=hpcremote.FIRST_COMPLETED)
    ar.wait_interactive(interval=0.01, return_when=hpcremote.FIRST_EXCEPTION)
    assert not ar.ready()
    assert capsys.readouterr().err.count("1/4") == 2
    worker = threading.Thread(target=link.resume)
    worker.start()
    ar.wait_interactive()
    worker.join()
    assert "4/4" in capsys.readouterr().err


def test_the_client_waits_with_a_bar_for_all(rc: Client, capsys: pytest.CaptureFixture[str]) -> None:
    rc.wait_interactive()
    ars = [rc[:].apply_async(abs, 1), rc[0].apply_async(abs, 2)]
    rc.wait_interactive()
    assert all(ar.ready() for ar in ars)
    assert "5/5" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_in_a_terminal_is_rewritten() -> None:
    file = Terminal()
    bar = TextBar(2, "work", file)
    bar.update(0)
    bar.update(1)
    bar.close()
    first, second = file.getvalue().split("\r")[1:]
    assert "0/2" in first and "1/2" in second and second.endswith("\n")


def test_a_bar_of_nothing_is_full() -> None:
    file = io.StringIO()
    bar = TextBar(0, "work", file)
    bar.update(0)
    assert file.getvalue() == ""
    bar.close()
    assert "[" + "#" * 30 + "] 0/0" in file.getvalue()


def test_without_widgets_a_line_of_text_will_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert in_notebook() is False
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ipywidgets", None)
        with progress_bar(1, "work", widget=True) as bar:
            bar.update(1)
    assert "1/1" in capsys.readouterr().err
