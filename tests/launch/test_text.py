"""Commands from templates, and sense from what programs print."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote.launch import catalog, text

# ---------------------------------------------------------------- templates


@pytest.mark.parametrize(
    ("lines", "values", "words"),
    [
        (
            ["$program", "-n $n", "$engine"],
            {"program": "/m", "n": 4, "engine": ["py", "-m", "x"]},
            "/m -n 4 py -m x",
        ),
        (["a", "-host $hosts"], {}, "a"),
        (["a", "-host $hosts"], {"hosts": None}, "a"),
        (["a", "--root $if_root"], {"if_root": ""}, "a --root"),
        (["a", "--root $if_root"], {"if_root": None}, "a"),
        (["a", "$args", "b"], {"args": []}, "a b"),
        (["-x $names"], {"names": ["A", "B"]}, "-x A -x B"),
        (["-x $names"], {"names": []}, ""),
        (["--n=${n}x$$"], {"n": 2}, "--n=2x$"),
        (["${args}"], {"args": ["p", "q"]}, "p q"),
    ],
)
def test_commands(lines, values, words):
    assert text.command(lines, values) == words.split()


def test_values_are_never_split_or_filled_in_again():
    values = {"dir": "/a b/$n", "n": 3, "engine": ["x y", "$n"]}
    assert text.command(["-wdir $dir", "$engine"], values) == ["-wdir", "/a b/$n", "x y", "$n"]


@given(st.lists(st.text(min_size=1)), st.text(min_size=1))
def test_any_word_arrives_as_it_is(words, path):
    assert text.command(["$program", "$args"], {"program": path, "args": words}) == [path, *words]


def test_a_word_with_spaces_stands_in_double_quotes():
    assert text.command(['-o "jobid stat"', "$id"], {"id": "7"}) == ["-o", "jobid stat", "7"]
    assert text.command(["""arguments="'$script'" """], {"script": "/a b"}) == ["arguments=\"'/a b'\""]


def test_environment_keeps_only_what_is_set():
    table = {"ROOT": "1 $if_root", "POLICY": ":over $if_spare", "PLAIN": "x"}
    assert text.environment(table, {"if_root": "", "if_spare": None}) == {"ROOT": "1", "PLAIN": "x"}


def test_fill_leaves_what_it_does_not_know():
    assert text.fill("$a of $b, $$5", {"a": ["x", "y"]}) == "x y of $b, $5"


def test_tail_leaves_rules_and_blank_lines_out():
    assert text.tail("a\n-----\n\n  b\n====\nc\n", 2) == "  b\nc"


# ---------------------------------------------------------------- mpiexec --version, as recorded

MPICH = """\
HYDRA build details:
    Version:                                 5.0.2
    Release Date:                            Fri Sep 25 20:45:26 UTC 2026
    CC:                              cc
    Configure options:                       --with-device=ch4:ucx,ofi --with-pm=hydra:gforker
    Process Manager:                         pmi
    Launchers available:                     ssh rsh fork slurm ll lsf sge manual persist
"""
MPICH_4 = MPICH.replace("5.0.2", "4.0.2")
OPENMPI_5 = "mpiexec (Open MPI) 5.0.11\n\nReport bugs to https://www.open-mpi.org/community/help/\n"
OPENMPI_4 = "mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/\n"
OPENRTE_4 = "mpiexec (OpenRTE) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/\n"
INTEL = (
    "Intel(R) MPI Library for Linux* OS, Version 2021.18.1 Build 20260626 (id: b44796a)\n"
    "Copyright 2003-2026, Intel Corporation.\n"
)


@pytest.fixture(scope="module")
def flavours():
    return catalog.load("mpiexec").flavours


@pytest.mark.parametrize(
    ("output", "key", "version"),
    [
        (MPICH, "mpich", "5.0.2"),
        (MPICH_4, "mpich", "4.0.2"),
        (OPENMPI_5, "openmpi", "5.0.11"),
        (OPENMPI_4, "openmpi", "4.1.4"),
        (OPENRTE_4, "openmpi", "4.1.4"),
        (INTEL, "intel", "2021.18.1"),
        ("some wrapper of the site, version 3\n", "unknown", ""),
        ("", "unknown", ""),
    ],
)
def test_flavours_are_recognised(flavours, output, key, version):
    found = text.recognise(flavours, output)
    assert found is not None
    assert (found[0].key, found[1]) == (key, version)


LIB_MPICH = "MPICH Version:      5.0.2\nMPICH Release date: Fri Sep 25 20:45:26 UTC 2026\nMPICH ABI: 18:2:6\n"
LIB_OPENMPI = (
    "Open MPI v5.0.11, package: Open MPI root@x Distribution, ident: 5.0.11, repo rev: v5.0.11, 2026"
)
LIB_INTEL = "Intel(R) MPI Library 2021.18 for Linux* OS\n"
LIB_MVAPICH = "MVAPICH2 Version      :\t2.3.7\nMVAPICH2 Release date : Wed March 02 22:00:00 EST 2022\n"


@pytest.mark.parametrize(
    ("said", "key", "version"),
    [
        (LIB_MPICH, "mpich", "5.0.2"),
        (LIB_OPENMPI, "openmpi", "5.0.11"),
        (LIB_INTEL, "intel", "2021.18"),
        (LIB_MVAPICH, "mpich", "2.3.7"),
    ],
)
def test_libraries_are_recognised(flavours, said, key, version):
    found = text.library(flavours, said)
    assert found is not None
    assert (found[0].key, found[1]) == (key, version)


def test_an_unknown_library_has_no_flavour(flavours):
    assert text.library(flavours, "some MPI") is None


def test_a_mismatch_names_both_and_the_remedy(flavours):
    mine = ("Open MPI", "4.1.4", "/usr/bin/mpiexec")
    said = text.mismatch(flavours, mine, LIB_MPICH, "/v/lib/libmpi.so.12")
    assert said.startswith(
        "mpiexec is Open MPI 4.1.4 (/usr/bin/mpiexec) but mpi4py loads MPICH 5.0.2 (/v/lib/libmpi.so.12)"
    )
    assert "mpiexec: /path/to/mpiexec" in said
    assert "pip install 'hpcremote[openmpi]'" in said


def test_what_fits_is_no_mismatch(flavours):
    assert text.mismatch(flavours, ("MPICH", "5.0.2", "/m"), LIB_MPICH, "/lib") == ""


def test_a_library_that_says_nothing_known_is_quoted(flavours):
    assert "mpi4py loads Strange MPI 1 (/s.so)" in text.mismatch(
        flavours, ("MPICH", "5", "/m"), "Strange MPI 1\nmore", "/s.so"
    )


# ---------------------------------------------------------------- refusals, as recorded

NO_SLOTS = """\
--------------------------------------------------------------------------
There are not enough slots available in the system to satisfy the 3
slots that were requested by the application:
"""
AS_ROOT = "prterun has detected an attempt to run as root.\n\nRunning as root is *strongly* discouraged\n"
NO_LIBRARY = "RuntimeError: cannot load MPI library\nlibmpi.so: cannot open shared object file: No such file"


@pytest.mark.parametrize(
    ("output", "meaning"),
    [
        (NO_SLOTS, "Open MPI has fewer slots than the 3 ranks asked for: start fewer"),
        (AS_ROOT, "Open MPI refuses to run as root: set OMPI_ALLOW_RUN_AS_ROOT"),
        (NO_LIBRARY, "the engines find no MPI library: install one (pip install 'hpcremote[mpich]')"),
        ("/usr/bin/python3: No module named hpcremote", "hpcremote is not installed for /usr/bin/python3"),
        ("all is well", ""),
    ],
)
def test_refusals_are_explained(output, meaning):
    values = {"flavour": "Open MPI", "n": 3, "profile": "mpi", "python": "/usr/bin/python3"}
    said = text.explain(catalog.load("mpiexec").hints, output, values)
    assert said.startswith(meaning)
    assert bool(said) == bool(meaning)
    assert "$" not in said


def test_the_last_complaint_of_a_command_of_ours():
    log = "hpcremote: job 7 has started on node1\nhpcremote: first\nTraceback\nhpcremote: interface: no\n"
    assert text.complaint(log) == "interface: no"
    assert text.complaint("hpcremote: job 7 has started on node1\nhpcremote: the ranks have ended (1)") == ""
