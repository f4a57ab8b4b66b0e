#!/usr/bin/env bash
# Fetches what the look-alike benchmark is made of: seven typefaces that the pretrained recogniser never saw, and text.
#
#   scripts/benchmark/fetch.sh FOLDER
#
# Writes FOLDER/debs/ (unpacked Debian 12 packages, about 200 MB downloaded). Needs apt-get and dpkg.
set -euo pipefail
if [ $# -ne 1 ]; then
  echo "usage: $0 FOLDER" >&2
  exit 2
fi

packages=(fonts-wqy-zenhei fonts-arphic-uming fonts-arphic-ukai texlive-lang-chinese fortunes-zh)
mkdir -p "$1/archives" "$1/debs"
apt-get update -qq
(cd "$1/archives" && apt-get download -qq "${packages[@]}")
for archive in "$1"/archives/*.deb; do
  dpkg -x "$archive" "$1/debs"
done
