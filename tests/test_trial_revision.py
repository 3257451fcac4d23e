"""The commit that a result names."""

from __future__ import annotations

import subprocess

from trial.revision import code_revision


def git(folder, *words):
    identity = ["-c", "user.name=A Student", "-c", "user.email=student@example.org"]
    return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_the_commit_and_whether_files_differ_from_it(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("a = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    assert code_revision(tmp_path) == commit
    (tmp_path / "untracked.txt").write_text("a run's output\n")
    assert code_revision(tmp_path) == commit
    (tmp_path / "code.py").write_text("a = 2\n")
    assert code_revision(tmp_path) == commit + "+changes"


def test_a_copy_without_a_repository_of_its_own_is_unknown(tmp_path):
    git(tmp_path, "init")
    copy = tmp_path / "unpacked"
    copy.mkdir()
    assert code_revision(copy) == "unknown"  # the commit around it is another project's
    assert code_revision(tmp_path) == "unknown"  # no commit yet
