#!/usr/bin/env bash
# Builds a copy of the tree with the mutants of tests/mutants, each of which breaks one rule that exactly-once rests on, and runs
# the tests on each until one fails: the simulator's seeds first, then unit tests, then the kill matrix.
#
#   scripts/mutants.sh [MUTANT…]     all of them, unless some are named
#
# The copy has one build for all: a variable says which mutant a process is. The product has no such switch. Ends with a table
# and the line `N of M caught`; the code is 1 unless that is all.
# SEEDS (1000), CYCLES (16), CARGO (cargo), CARGO_FLAGS
set -euo pipefail
cd "$(dirname "$0")/.."

seeds=${SEEDS:-1000} cycles=${CYCLES:-16} cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-$PWD/target}
tree=$target/mutants/tree logs=$target/mutants/logs
read -ra flags <<<"${CARGO_FLAGS:-}"
units=(sink:: ledger:: checkpoint:: operator::deliver connect::kafka::sink)

say() { echo "mutants: $*" >&2; }

# A file keeps its time where it is the same, or everything would be built again.
copy_tree() {
	mkdir -p "$tree.new" "$tree" "$logs"
	git ls-files -z --cached --others --exclude-standard | xargs -0 cp -p --parents -t "$tree.new"
	(
		cd "$tree.new"
		for patch in tests/mutants/switch.patch $(mutants | sed 's|.*|tests/mutants/&.patch|'); do
			patch -p1 -s --no-backup-if-mismatch -i "$patch" || { say "$patch does not apply any more"; exit 1; }
		done
	)
	find "$tree.new" -type f -printf '%P\n' | while IFS= read -r file; do
		cmp -s "$tree.new/$file" "$tree/$file" || { mkdir -p "$(dirname "$tree/$file")"; cp "$tree.new/$file" "$tree/$file"; }
	done
	rm -rf "$tree.new"
}

mutants() { for file in tests/mutants/*.patch; do basename "$file" .patch; done | grep -vx switch; }

# The binary that a target was built as. The copy's artifacts would be taken for those of the tree itself, so it has a folder of
# its own for them.
built() {
	(cd "$tree" && CARGO_TARGET_DIR=$target/mutants/target $cargo test --workspace --features "$features" "${flags[@]}" "$@" --no-run --message-format=short 2>&1) |
		tee "$logs/build.log" | sed -n 's/.*Executable.*(\(.*\))$/\1/p' | tail -1
}
features=thalweg/object-store,thalweg/postgres,thalweg/protobuf,thalweg/json-schema

# Runs something as a mutant; whether it fails.
fails() {
	local mutant=$1 log=$2
	shift 2
	! (cd "$tree" && THALWEG_MUTANT=$mutant timeout 900 "$@") >"$logs/$log" 2>&1
}

# By what a mutant is caught, and after how much.
caught() {
	local mutant=$1 log
	log=$mutant.seeds
	if SEEDS=0..$seeds fails "$mutant" "$log" "$lib" --exact runtime::sim::seeds --nocapture; then
		echo "simulator|seed $(sed -n 's/.*seed \([0-9]*\) failed.*/\1/p' "$logs/$log" | head -1)"
		return
	fi
	log=$mutant.units
	if fails "$mutant" "$log" "$lib" "${units[@]}"; then
		echo "unit tests|$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$logs/$log" | head -1)"
		return
	fi
	log=$mutant.matrix
	# Where the simulator and the unit tests have no say, the sinks do: points of theirs, then everything.
	for some in "--only kafka_sink.,sink." "--seed 1"; do
		# shellcheck disable=SC2086
		if fails "$mutant" "$log" "$matrix" --cycles "$cycles" $some; then
			local line at
			line=$(tail -1 "$logs/$log")
			at=$(grep -nm1 -E '^cycle .*(lost|duplicate|torn|reordered|aborted-read|unbound|backwards) [1-9]' <(grep '^cycle ' "$logs/$log") |
				cut -d: -f1 || true)
			echo "kill matrix|cycle ${at:-$cycles}: ${line#cycles*, }"
			return
		fi
	done
	echo "–|not caught: $seeds seeds, unit tests, $((2 * cycles)) cycles"
}

copy_tree
say "building"
lib=$(built --exclude dataflows --exclude nexmark --exclude bench --lib)
matrix=$(built --test kill_matrix)
[[ -x $lib && -x $matrix ]] || { tail -30 "$logs/build.log" >&2; exit 1; }

# Without a mutant nothing may fail, or nothing below says anything.
if SEEDS=0..50 fails none none.seeds "$lib" --exact runtime::sim::seeds || fails none none.units "$lib" "${units[@]}"; then
	say "the tests fail without a mutant, see $logs/none.*"
	exit 1
fi

wanted=("$@")
[[ ${#wanted[@]} -gt 0 ]] || mapfile -t wanted < <(mutants)
n=0
printf '| %-30s | %-11s | %s\n' mutant 'caught by' after
for mutant in "${wanted[@]}"; do
	IFS='|' read -r by after < <(caught "$mutant")
	[[ $by == – ]] || n=$((n + 1))
	printf '| %-30s | %-11s | %s\n' "$mutant" "$by" "$after"
done
echo "$n of ${#wanted[@]} caught"
[[ $n -eq ${#wanted[@]} ]]
