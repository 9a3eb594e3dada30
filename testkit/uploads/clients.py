"""Uploads by clients that are not ours, against a control plane and its object store.

    clients.py curl|boto3 FILE     add FILE, whole and in parts; one line of JSON with the tracks
    clients.py object KEY FILE     hold an object against FILE
    clients.py orphan              begin an upload that nobody knows; its id
    clients.py unfinished          ids of the unfinished uploads under our prefix
    clients.py cors                let pages of any origin upload
    clients.py moto                serve an empty store until standard input ends; its address

The control plane and the store come by variables: CONTROL, TOKEN, STORE, ACCESS, SECRET.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request

BUCKET = "media"


def call(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"authorization": "Bearer " + os.environ["TOKEN"], "content-type": "application/json"}
    request = urllib.request.Request(os.environ["CONTROL"] + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as response:
        text = response.read()
    return json.loads(text) if text else None


def store():
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=os.environ["STORE"],
        region_name="us-east-1",
        aws_access_key_id=os.environ["ACCESS"],
        aws_secret_access_key=os.environ["SECRET"],
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
    )


def curl(place, data, expect="200"):
    """PUTs as a person at a shell would."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(data)
        body.flush()
        command = ["curl", "--silent", "--show-error", "--max-time", "60", "--upload-file", body.name]
        command += ["--output", "/dev/null", "--write-out", "%{http_code}"]
        for name, value in place["headers"].items():
            command += ["--header", f"{name}: {value}"]
        said = subprocess.run([*command, place["url"]], check=True, capture_output=True, text=True).stdout
    assert said == expect, f"curl: {said}"


def botocore(place, data):
    """PUTs with the HTTP client that boto3 is made of."""
    from botocore.awsrequest import AWSRequest
    from botocore.httpsession import URLLib3Session

    request = AWSRequest(method="PUT", url=place["url"], headers=place["headers"], data=data)
    response = URLLib3Session().send(request.prepare())
    assert response.status_code == 200, response.text


def whole(data, put):
    """One presigned PUT, with the SHA-256 signed in."""
    declared = {"filename": "whole.wav", "size": len(data), "multipart": False}
    declared["sha256"] = hashlib.sha256(data).hexdigest()
    added = call("POST", "/v1/tracks", declared)
    assert "x-amz-checksum-sha256" in added["upload"]["headers"], added
    put(added["upload"], data)
    call("POST", f"/v1/tracks/{added['track']['track']}/uploaded", {})
    return added["track"]["track"]


def in_parts(data, put, md5=False):
    added = call("POST", "/v1/tracks", {"filename": "parts.wav", "size": len(data)})
    track, upload = added["track"]["track"], added["upload"]
    assert upload["method"] == "MULTIPART" and upload["parts"] == 3, upload
    pieces = [data[at : at + upload["part_size"]] for at in range(0, len(data), upload["part_size"])]
    # The last one first, and the first with its digest signed in.
    for number in (3, 2, 1):
        wish = number
        if md5 and number == 1:
            wish = {"number": 1, "md5": base64.b64encode(hashlib.md5(pieces[0]).digest()).decode()}
        (place,) = call("POST", f"/v1/tracks/{track}/upload/urls", {"parts": [wish]})["parts"]
        put(place, pieces[number - 1])
    shown = call("GET", f"/v1/tracks/{track}/upload")
    assert [part["number"] for part in shown["present"]] == [1, 2, 3], shown
    call("POST", f"/v1/tracks/{track}/uploaded", {})
    return track


def own_hand(place, data):
    """The second part by boto3's own call, with the bucket's credentials; the others by their URLs."""
    if place["number"] != 2:
        return botocore(place, data)
    url = urllib.parse.urlsplit(place["url"])
    query = dict(urllib.parse.parse_qsl(url.query))
    key = urllib.parse.unquote(url.path).removeprefix(f"/{BUCKET}/")
    store().upload_part(Bucket=BUCKET, Key=key, UploadId=query["uploadId"], PartNumber=2, Body=data)


def mismatch(data):
    """A part that is other than its sender was told; only where the store lists tags. Gives the refusal's word."""
    added = call("POST", "/v1/tracks", {"filename": "other.wav", "size": len(data)})
    track, upload = added["track"]["track"], added["upload"]
    for place in upload["urls"]:
        from_ = (place["number"] - 1) * upload["part_size"]
        botocore(place, data[from_ : from_ + place["bytes"]])
    call("POST", f"/v1/tracks/{track}/upload/parts", {"parts": [{"number": 2, "etag": '"' + "0" * 32 + '"'}]})
    try:
        call("POST", f"/v1/tracks/{track}/uploaded", {})
        return None
    except urllib.error.HTTPError as error:
        return json.load(error)["error"]


def unfinished():
    return [upload["UploadId"] for upload in store().list_multipart_uploads(Bucket=BUCKET, Prefix="uploads/").get("Uploads", [])]


def cors():
    rule = {"AllowedOrigins": ["*"], "AllowedMethods": ["PUT", "GET", "HEAD"], "AllowedHeaders": ["*"]}
    store().put_bucket_cors(Bucket=BUCKET, CORSConfiguration={"CORSRules": [rule]})


def main(what, *rest):
    if what == "moto":
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        print(f"http://{host}:{port}", flush=True)
        sys.stdin.read()
        server.stop()
    elif what in ("curl", "boto3"):
        with open(rest[0], "rb") as file:
            data = file.read()
        put = curl if what == "curl" else botocore
        tracks = [whole(data, put), in_parts(data, curl, md5=True) if what == "curl" else in_parts(data, own_hand)]
        print(json.dumps({"tracks": tracks}))
    elif what == "mismatch":
        with open(rest[0], "rb") as file:
            print(json.dumps(mismatch(file.read())))
    elif what == "object":
        with open(rest[1], "rb") as file:
            assert store().get_object(Bucket=BUCKET, Key=rest[0])["Body"].read() == file.read(), rest[0]
    elif what == "orphan":
        upload = store().create_multipart_upload(Bucket=BUCKET, Key="uploads/abcdefghijkl/nobody")
        print(json.dumps(upload["UploadId"]))
    elif what == "cors":
        cors()
    elif what == "unfinished":
        print(json.dumps(unfinished()))
    else:
        sys.exit(__doc__)


main(*sys.argv[1:])
