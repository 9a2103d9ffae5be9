"""The analysis as a document: study files, how they are read, begun, run and checked."""

from msmmiv.document.begin import StudyDraft, init_study
from msmmiv.document.checking import StudyCheck, check_study
from msmmiv.document.problems import StudyFileError
from msmmiv.document.reading import read_study
from msmmiv.document.running import StudyRun, run_study
from msmmiv.document.study_file import StudyFile

__all__ = ["StudyCheck", "StudyDraft", "StudyFile", "StudyFileError", "StudyRun", "check_study", "init_study",
           "read_study", "run_study"]  # fmt: skip
