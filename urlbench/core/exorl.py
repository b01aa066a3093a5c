"""What ExORL published: its exploration methods and where their data lie.

Source: Yarats et al. 2022, "Don't Change the Algorithm, Change the Data: Exploratory Data for Offline Reinforcement
Learning", and its repository denisyarats/exorl.
"""

METHODS = {
    "aps": "APS",
    "diayn": "DIAYN",
    "disagreement": "Disagreement",
    "icm": "ICM",
    "icm_apt": "APT on ICM's features",
    "proto": "ProtoRL",
    "random": "random actions",
    "rnd": "RND",
    "smm": "SMM",
}
"""Exploration methods by the names of their archives, which are the names of collections here."""

MAIN_METHOD = "rnd"
"""The one that offline results are reported on first (Choreographer, sec. 4.1)."""

BASE_URL = "https://dl.fbaipublicfiles.com/exorl"


def archive_url(base_url: str, domain: str, collection: str) -> str:
    """Where the archive of a data set is."""
    return f"{base_url.rstrip('/')}/{domain}/{collection}.zip"


def suite_name(collection: str) -> str:
    """The suite that pretrains on a collection."""
    return "urlb-offline" if collection == MAIN_METHOD else f"urlb-offline-{collection}"


def suite_description(collection: str) -> str:
    """One line about that suite."""
    return f"12 tasks from states as in URLB, pretrained on data collected by {METHODS[collection]} (ExORL)"
