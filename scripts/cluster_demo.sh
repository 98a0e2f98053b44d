#!/bin/sh
# Predict rendered cars by two workers of this machine and by one process: the same file?
#     sh scripts/cluster_demo.sh data/cluster-demo sharp
set -eux
folder=$1 weights=$2
PATH=.venv/bin:$PATH
carvana sandbox render "$folder/kaggle" --train-cars 1 --test-cars 8
carvana download --from "$folder/kaggle" --data "$folder" --only test
set -- predict --weights "$weights" --images "$folder/test"
carvana "$@" --out "$folder/two.csv.gz" --cluster local:2
carvana "$@" --out "$folder/one.csv.gz"
cmp "$folder/one.csv.gz" "$folder/two.csv.gz"
set +x
echo "two workers and one process made the same file"
