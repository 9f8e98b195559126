"""The command-line tools: a module each, found by its name in the one table below."""

from __future__ import annotations

COMMANDS = {
    "maggr": "compute sums, means and the like of columns, by key",
    "mcat": "have objects be outputs of a task, without touching their bytes",
    "mchattr": "replace the headers that are kept with objects and directories",
    "mfind": "find objects and directories below a directory",
    "mget": "get objects",
    "minfo": "show the headers of an object or a directory",
    "mjob": "run commands on objects, where they are stored",
    "mln": "make a snaplink",
    "mlogin": "have a terminal where an object is stored",
    "mls": "list directories",
    "mmd5": "show the MD5 of objects",
    "mmkdir": "make directories",
    "mpipe": "put standard input, or a file, as an output of a task",
    "mput": "put objects",
    "mrm": "remove objects, and trees",
    "mrmdir": "remove empty directories",
    "msign": "sign URLs that anybody can use for a while",
    "msplit": "spread lines over the reducers of the next phase",
    "msync": "make a directory equal to another one, between here and the store",
    "mtee": "copy standard input to standard output, and put it",
    "muntar": "put what is in a tar file",
}
"""name of each command, which is its module's, and what it does"""
