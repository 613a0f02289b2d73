#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The life of one page, by hand, with nothing but curl: a device translates, asks for the page, writes through it; a
# munmap waits for the device to let go; and a device that never answers is fenced. Each answer is checked.
#
#   walkthrough.sh [URL]        default: http://127.0.0.1:7460, where `iommulab serve` listens
set -eu

url=${1:-${IOMMULAB_URL:-http://127.0.0.1:7460}}
work=$(mktemp -d)
watchers=
trap 'for pid in $watchers; do kill "$pid" 2>/dev/null || true; done; rm -rf "$work"' EXIT

# call SERVICE/METHOD JSON: one unary call; prints the answer.
call() {
  curl --silent --show-error --http2-prior-knowledge --max-time 60 \
    --header 'content-type: application/json' --data "$2" "$url/iommulab.v1.$1"
}

# field NAME JSON: the first value of that name.
field() {
  printf '%s\n' "$2" | grep -o "\"$1\": *\"\{0,1\}[^\",}]*" | head -n 1 | sed 's/^[^:]*: *"\{0,1\}//'
}

exec 4>&1 # the terminal, for functions whose output is taken
say() { printf '\n%s\n' "$*"; }
fail() {
  printf 'walkthrough: %s\n' "$*" >&2
  exit 1
}

# expect WHAT NAME VALUE JSON: the field has that value.
expect() {
  printf '  %s\n' "$4"
  [ "$(field "$2" "$4")" = "$3" ] || fail "$1: $2 should be $3 in $4"
}

# expect_absent WHAT NAME JSON: the field is absent or false.
expect_absent() {
  printf '  %s\n' "$3"
  case $(field "$2" "$3") in '' | false) ;; *) fail "$1: $2 should not be set in $3" ;; esac
}

# watch NAME MACHINE DEVICE: opens the device's event stream, one JSON line for each batch, into a pipe.
watch() {
  mkfifo "$work/$1"
  curl --silent --no-buffer --http2-prior-knowledge --max-time 120 --header 'content-type: application/json' \
    --header 'accept: application/x-ndjson' --data "{\"machine\":\"$2\",\"device\":\"$3\"}" \
    "$url/iommulab.v1.DeviceService/Watch" >"$work/$1" &
  watchers="$watchers $!"
}

# next_event NAME: reads lines from the stream on standard input until one has an event of that name.
next_event() {
  while read -r line; do
    case $line in *"\"$1\""*) printf '%s\n' "$line"; return ;; esac
  done
  fail "the stream ended before an event '$1'"
}

# page_for_device MACHINE DEVICE: asks for the page, translates it, and prints its physical address.
page_for_device() {
  answer=$(call DeviceService/RequestPages "{\"machine\":\"$1\",\"device\":\"$2\",\"pageRequests\":[
    {\"pasid\":5,\"address\":\"0x100000\",\"read\":true,\"write\":true,\"groupIndex\":7,\"last\":true}]}")
  [ "$(field code "$answer")" = PAGE_RESPONSE_CODE_SUCCESS ] || fail "the page request should succeed: $answer"
  printf '  %s\n' "$answer" >&4
  answer=$(call DeviceService/Translate "{\"machine\":\"$1\",\"device\":\"$2\",
    \"translate\":{\"tag\":2,\"pasid\":5,\"address\":\"0x100000\"}}")
  [ "$(field write "$answer")" = true ] || fail "the device should now be allowed to write: $answer"
  printf '  %s\n' "$answer" >&4
  field physicalAddress "$answer"
}

# prepare TIMEOUT: a machine with one address space, one area and one device with PASID 5; sets the variables.
prepare() {
  answer=$(call MachineService/CreateMachine "{\"settings\":{\"invalidationTimeoutNanoseconds\":\"$1\"}}")
  machine=$(field machine "$(printf '%s' "$answer" | sed 's/^[^:]*: *{//')")
  [ -n "$machine" ] || fail "no machine: $answer"
  answer=$(call AddressSpaceService/CreateAddressSpace "{\"machine\":\"$machine\"}")
  space=$(field addressSpace "$answer")
  [ -n "$space" ] || fail "no address space: $answer"
  answer=$(call AddressSpaceService/Mmap "{\"machine\":\"$machine\",\"addressSpace\":\"$space\",
    \"address\":\"0x100000\",\"byteCount\":\"0x4000\",\"read\":true,\"write\":true}")
  expect mmap status OPERATION_STATUS_SUCCESS "$answer"
  answer=$(call DeviceService/RegisterDevice "{\"machine\":\"$machine\",\"rid\":8}")
  device=$(field device "$answer")
  [ -n "$device" ] || fail "no device: $answer"
  answer=$(call DeviceService/BindPasid "{\"machine\":\"$machine\",\"device\":\"$device\",\"pasid\":5,
    \"sva\":{\"addressSpace\":\"$space\",\"strategy\":\"invalidate-range\"}}")
  [ "$answer" = "{}" ] || fail "the binding should answer {}: $answer"
}

dma_write() { # MACHINE DEVICE PHYSICAL_ADDRESS VALUE
  call DeviceService/Dma "{\"machine\":\"$1\",\"device\":\"$2\",\"dma\":{\"tag\":3,\"write\":true,
    \"translated\":true,\"pasid\":5,\"address\":\"$3\",\"iova\":\"0x100000\",\"value\":\"$4\"}}"
}

complete_next() { # reads the stream from descriptor 3
  line=$(next_event invalidation <&3)
  printf '  %s\n' "$line"
  [ ! -s "$work/munmap" ] || fail "munmap answered before the device had completed: $(cat "$work/munmap")"
  itag=$(field itag "$line")
  vector=$(printf '0x%x' $((1 << ${itag:-0})))
  answer=$(call DeviceService/CompleteInvalidations "{\"machine\":\"$machine\",\"device\":\"$device\",
    \"complete\":{\"itagVector\":\"$vector\"}}")
  expect_absent completion ignored "$answer"
}

say "A machine, an address space with an area, and a device with PASID 5 that shares it."
prepare 60000000000

say "The device translates: not present."
answer=$(call DeviceService/Translate "{\"machine\":\"$machine\",\"device\":\"$device\",
  \"translate\":{\"tag\":1,\"pasid\":5,\"address\":\"0x100000\"}}")
expect translate status TRANSLATION_STATUS_SUCCESS "$answer"
expect_absent translate read "$answer"

say "It asks for the page, and translates again."
physical=$(page_for_device "$machine" "$device")

say "It writes 0x2a to $physical, and the CPU reads it back."
expect dma status DMA_STATUS_SUCCESS "$(dma_write "$machine" "$device" "$physical" 0x2a)"
answer=$(call AddressSpaceService/Load "{\"machine\":\"$machine\",\"addressSpace\":\"$space\",\"address\":\"0x100000\"}")
expect load value 0x2a "$answer"

say "A munmap: an invalidation arrives as a line on the device's stream, and munmap waits."
watch events "$machine" "$device"
exec 3<"$work/events"
read -r line <&3 || fail "the stream should answer at once"
call AddressSpaceService/Munmap "{\"machine\":\"$machine\",\"addressSpace\":\"$space\",
  \"address\":\"0x100000\",\"byteCount\":\"0x4000\"}" >"$work/munmap" &
munmap=$!
complete_next

say "That was the one of invalidate_range_end. The one before pages and page tables are freed follows it."
complete_next

say "The device has completed both, and munmap answers."
wait "$munmap" || fail "munmap"
expect munmap status OPERATION_STATUS_SUCCESS "$(cat "$work/munmap")"
exec 3<&-

say "No access reached memory that was taken away."
answer=$(call MachineService/ListVerdicts "{\"machine\":\"$machine\"}")
expect_absent verdicts kind "$answer"

say "Another machine, whose device never completes: fenced at the time-out, and only then munmap answers."
prepare 100000000
physical=$(page_for_device "$machine" "$device")
watch silence "$machine" "$device"
exec 3<"$work/silence"
read -r line <&3 || fail "the stream should answer at once"
answer=$(call AddressSpaceService/Munmap "{\"machine\":\"$machine\",\"addressSpace\":\"$space\",
  \"address\":\"0x100000\",\"byteCount\":\"0x4000\"}")
expect munmap status OPERATION_STATUS_SUCCESS "$answer"
line=$(next_event state <&3)
expect fence state DEVICE_STATE_FENCED_INVALIDATION_TIMED_OUT "$line"
exec 3<&-

say "Its DMA is refused."
expect dma status DMA_STATUS_FENCED "$(dma_write "$machine" "$device" "$physical" 0x2b)"
answer=$(call MachineService/ListVerdicts "{\"machine\":\"$machine\"}")
expect_absent verdicts kind "$answer"

say "All as it should be."
