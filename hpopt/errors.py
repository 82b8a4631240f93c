"""Every exception hpopt raises on its own account, named by whose fault it is.

HpoptError
|-- HpoptUnavailable      the server or the coordinator did not answer in time
|   `-- NoCoordinator     the server answers, but no coordinator is running
|-- StudyError            the study says no
|   |-- UnknownStudy      there is no such study (any more)
|   |-- StudyExists       a study of this name is not finished
|   |-- StudyPaused       trials keep failing before their first report
|   `-- StudyReplaced     a new study took this one's name
|-- VersionSkew           the two sides speak different versions of the protocol
|-- EmbeddedError         the bundled server could not be started
|   `-- SavePathInUse     another process has its server in this save_path
`-- MissingExtra          an optional dependency is not installed

What a user passes wrongly raises ValueError or TypeError, never one of these.
"""


class HpoptError(Exception):
    """Base of all errors of hpopt."""


class HpoptUnavailable(HpoptError):
    """The server or the coordinator did not answer before the deadline; nothing acknowledged is lost."""


class NoCoordinator(HpoptUnavailable):
    """The server answers, but no coordinator is running."""


class StudyError(HpoptError):
    """The study cannot do what was asked."""


class UnknownStudy(StudyError):
    """There is no such study on this server, or its data is gone."""


class StudyExists(StudyError):
    """A study of this name is still going on."""


class StudyPaused(StudyError):
    """Trials kept failing before their first report, so no more are handed out."""


class StudyReplaced(StudyError):
    """A newer study has taken this one's name."""


class VersionSkew(HpoptError):
    """This process and the coordinator speak different versions of the protocol."""


class EmbeddedError(HpoptError):
    """The bundled server or its coordinator could not be started."""


class SavePathInUse(EmbeddedError):
    """Another live process runs its embedded server in this save_path."""


class MissingExtra(HpoptError, ImportError):
    """An optional dependency is not installed; the message names the extra."""
