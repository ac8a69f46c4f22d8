#!/usr/bin/env bash
# Eight minutes on a GPU: the steps at the scale of the papers beside their compiled bounds, then losses and input.
# What matters most comes first; what is done is not done again, so the same command goes on; a table comes at the end.
#
#   bash benchmarks/gpu.sh OUT
#   BUDGET=1200 LIMIT=300 bash benchmarks/gpu.sh OUT    # seconds for all of it, and for a row (480 and 150)
#   SMALL=1 bash benchmarks/gpu.sh OUT        # the same commands on little work, for a laptop
#
# OUT has the JSON, the output and the errors of each row, and table.md.
set -u
out=${1:?usage: bash benchmarks/gpu.sh OUT}
budget=${BUDGET:-480} small=${SMALL:-} python=${PYTHON:-python}
cd "$(dirname "$0")/.." || exit 1
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$out/compiled}
# Seconds that a row may take at most, and below which none is begun.
limit=${LIMIT:-150} least=20
names=()

# row NAME COMMAND...: runs a command whose last line is its result, unless it has one already.
row() {
  local name=$1 begin=$SECONDS left=$((budget - SECONDS))
  shift
  names+=("$name")
  [ -s "$out/$name.result" ] && return
  [ "$left" -lt "$least" ] && return
  [ "$left" -gt "$limit" ] && left=$limit
  echo "$name ..." >&2
  if timeout "$left" "$@" >"$out/$name.txt" 2>"$out/$name.log"; then
    echo "$((SECONDS - begin)) s | $(tail -n 1 "$out/$name.txt")" >"$out/$name.result"
  fi
}

# step NAME CONFIG SMALL_CONFIG [--config.KEY=VALUE...]: a training step on the device at hand.
step() {
  local name=$1 config=$2 tiny=$3
  shift 3
  if [ -n "$small" ]; then
    row "$name" "$python" -m benchmarks.speed.device_step --config="$tiny" --out="$out/$name.json" --turns=1 --steps=1
  else
    row "$name" "$python" -m benchmarks.speed.device_step --config="$config" --out="$out/$name.json" "$@"
  fi
}

tiny=tests/training/tiny.py
step lgdea_mimic configs/lgdea_mimic.py $tiny:lgdea_pairs
step clip_mimic configs/clip_mimic.py $tiny:clip
step lgdea_mimic_unpaired configs/lgdea_mimic.py:limited $tiny:lgdea --config.batch.images=256 --config.batch.reports=256
step clip_mimic_resnet50 configs/clip_mimic.py:resnet50 $tiny:clip_sigmoid
step clip_ct configs/clip_ct.py $tiny:local --config.batch.pairs=8
if [ -n "$small" ]; then
  row losses "$python" -m benchmarks.speed.contrastive --out="$out/losses.json" --rows=64 --width=16 --chunk=32 \
    --repeats=1 --losses=softmax
else
  row losses "$python" -m benchmarks.speed.contrastive --out="$out/losses.json" --rows=32768 --repeats=3
  row input "$python" -m benchmarks.speed.input_pipeline --out="$out/input.json" --only=rate --repeats=3 --seconds=2
fi

{
  echo "| Row | Time | Result |"
  echo "|---|---|---|"
  for name in "${names[@]}"; do
    if [ -s "$out/$name.result" ]; then
      echo "| $name | $(cat "$out/$name.result") |"
    elif [ -s "$out/$name.log" ]; then
      echo "| $name | | not finished: $(tail -n 1 "$out/$name.log") |"
    else
      echo "| $name | | no time left |"
    fi
  done
} | tee "$out/table.md"
