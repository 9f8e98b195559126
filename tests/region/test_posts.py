"""The commands of the posts, word for word but for the account: videos are transcribed where they lie, a tarball is made, words are found.

A small program stands in for the application: `video-transcribe` runs ffprobe on a video and stores what it says as JSON.
Source: mjob-cli.md, section 5.1. The shell expands what the posts' shell expands, and keeps `$MANTA_INPUT_FILE` for the task.
"""

from __future__ import annotations

import io
import json
import os
import tarfile

import pytest

from ops.region import REPO
from tests.region.signed import Client, encode
from tests.stock_clients import Shell

pytestmark = pytest.mark.region
VIDEOS = 2
MAKE_VIDEO = (
    "ffmpeg -v error -f lavfi -i testsrc=duration=10:size=160x120:rate=10 -pix_fmt yuv420p -c:v mpeg4 -f mov /var/tmp/$MANTA_REDUCER.mov"
    " && mput -q -f /var/tmp/$MANTA_REDUCER.mov $MANTA_FOLDER/videos/video-$MANTA_REDUCER.mov"
)
TRANSCRIBE = """#!/bin/bash
# video-transcribe PROGRAM OUTDIR FILE: what PROGRAM says of a video, as JSON, beside the others.
set -e -o pipefail
name=$(basename "$3" .mov)
"$1/probe" "$3" > /var/tmp/$name.json
mpipe -f /var/tmp/$name.json "$2/$name.json"
"""
PROBE = '#!/bin/bash\nexec ffprobe -v error -of json -show_format "$1"\n'
MAKE_TARBALL = """#!/bin/bash
# make-tarball PATH: the sources of the application, packed by a job.
set -e
mkdir -p /var/tmp/kartlytics && cd /var/tmp
mget -q -o kartlytics/probe $(dirname "$1")/src/probe
chmod +x kartlytics/probe
tar czf kartlytics.tgz kartlytics
mput -q -f kartlytics.tgz "$1"
"""


@pytest.fixture(params=["stock", "ours"])
def client(request: pytest.FixtureRequest, manta: Shell) -> Shell:
    """A shell in which the commands are npm's, or our own."""
    if request.param == "stock":
        return manta
    return Shell({**manta.environment, "PATH": f"{REPO / 'bin'}:{os.environ['PATH']}"})


def test_videos_are_transcribed_where_they_lie(client: Shell, demo: Client, folder: str) -> None:
    for name in ("videos", "generated", "bin", "src"):
        assert demo.mkdir(f"{folder}/{name}").status == 204
    for name, text in (("bin/video-transcribe", TRANSCRIBE), ("bin/make-tarball", MAKE_TARBALL), ("src/probe", PROBE)):
        assert demo.request("PUT", f"{folder}/{name}", text.encode()).status == 204

    def sh(script: str) -> str:
        said = client("bash", "-c", f"set -e -o pipefail\n{script}")
        assert said.returncode == 0, said
        return said.stdout

    making = MAKE_VIDEO.replace("$MANTA_FOLDER", folder)
    sh(f"mjob create -q -w --count {VIDEOS} -r '{making}' < /dev/null")
    # S3
    sh(
        f"export KARTLYTICS_TARBALL={folder}/kartlytics.tgz\n"
        f'mjob create -w -s {folder}/bin/make-tarball -r "/assets{folder}/bin/make-tarball $KARTLYTICS_TARBALL" < /dev/null'
    )
    tarball = demo.request("GET", f"{folder}/kartlytics.tgz").body
    with tarfile.open(fileobj=io.BytesIO(tarball)) as tar:
        assert "kartlytics/probe" in tar.getnames()
    # S2
    job = sh(
        f"export KARTLYTICS_OUTDIR={folder}/generated\n"
        f"mfind -t o -n '.*.mov$' {folder}/videos | mjob create -w -s {folder}/kartlytics.tgz -s {folder}/bin/video-transcribe "
        f'--init "cd /var/tmp && tar xzf /assets{folder}/kartlytics.tgz" '
        f"-m \"/assets{folder}/bin/video-transcribe /var/tmp/kartlytics $KARTLYTICS_OUTDIR \"'$MANTA_INPUT_FILE'"
    ).split()[-1]
    for number in range(VIDEOS):
        said = json.loads(demo.request("GET", encode(f"{folder}/generated/video-{number}.json")).body)
        assert float(said["format"]["duration"]) == pytest.approx(10.0, abs=0.2)
    document = json.loads(sh(f"mjob get {job}"))
    assert document["stats"]["errors"] == 0
    assert document["phases"][0]["exec"].endswith("/generated $MANTA_INPUT_FILE")
    # S1
    listed = sh(f"mls -l {folder}/videos | grep -v json").splitlines()
    assert [line.split()[0] for line in listed] == ["-rwxr-xr-x"] * VIDEOS
