"""The command-line tools: a module each, found by its name in the one table below."""

from __future__ import annotations

COMMANDS = {
    "mchattr": "replace the headers that are kept with objects and directories",
    "mfind": "find objects and directories below a directory",
    "mget": "get objects",
    "minfo": "show the headers of an object or a directory",
    "mjob": "run commands on objects, where they are stored",
    "mln": "make a snaplink",
    "mls": "list directories",
    "mmd5": "show the MD5 of objects",
    "mmkdir": "make directories",
    "mput": "put objects",
    "mrm": "remove objects, and trees",
    "mrmdir": "remove empty directories",
    "msign": "sign URLs that anybody can use for a while",
    "msync": "make a directory equal to another one, between here and the store",
    "muntar": "put what is in a tar file",
}
"""name of each command, which is its module's, and what it does"""
