#!/bin/sh
# attnscope doctor on two copied machines: exact text but for times, valid JSON, width, errors.
attnscope=$1
source=$2
failures=0

check() { # check NAME EXPECTED ACTUAL
    if [ "$2" != "$3" ]; then
        failures=$((failures + 1))
        printf 'FAILED: %s\n--- expected\n%s\n--- actual\n%s\n' "$1" "$2" "$3"
    fi
}

meters() { # the meters of a copied machine, without what differs from call to call
    "$attnscope" doctor --root "$source/tests/data/$1" |
        sed -n '/^Meters/,/^$/p' | sed -E 's/read [0-9.]+ [num]?s/read _/; s/in the [0-9.]+ s it/in the _ s it/'
}

check 'virtual machine' 'Meters
  UNAVAILABLE  rapl-perf
               /sys/bus/event_source/devices/power
               why: no power PMU: /sys/bus/event_source/devices/power is absent
               fix: modprobe rapl; virtual machines have none
  UNAVAILABLE  rapl-powercap
               /sys/class/powercap
               why: virtual machines do not expose RAPL: no zone in
                    /sys/class/powercap (hypervisor: KVM)
               fix: run on bare metal; until then energy is modelled from
                    processor time
  UNAVAILABLE  nvml
               libnvidia-ml.so.1
               why: GPUs of a copied machine cannot be asked here
  UNAVAILABLE  amdsmi
               libamd_smi.so
               why: GPUs of a copied machine cannot be asked here
  UNAVAILABLE  hwmon
               /sys/class/hwmon
               why: no power sensor in /sys/class/hwmon
               fix: modprobe acpi_power_meter on servers; or a wall meter with
                    --meter-cmd
  MODELLED     processor energy
               ccf-vcpu/1
               0.74 W idle, 3.50 W busy per vCPU (class: unknown); within a
               factor of 2 at best
  MODELLED     memory energy
               ccf-vcpu/1
               0.392 W per GB that is kept
  UNAVAILABLE  memory peak               read _
               /proc/self/status VmHWM
               why: /proc/self/status: No such file or directory; mount /proc
  UNAVAILABLE  disk traffic              read _
               /proc/self/io read_bytes
               why: /proc/self/io read_bytes is absent; the kernel lacks
                    CONFIG_TASK_IO_ACCOUNTING
  COUNTED      page faults               read _
               getrusage ru_minflt
  MEASURED     stolen time               read _
               /proc/stat steal
  UNAVAILABLE  thermal throttling        read _
               /sys/devices/system/cpu/cpu*/thermal_throttle
               why: no processor tells: virtual machines and some makers do not
                    show it' \
    "$(meters machine-virtual)"

check 'server' '  MEASURED     rapl:package-0            step 61 uJ  read _
               /sys/class/powercap/intel-rapl:0/energy_uj
               why: it did not change in the _ s it was watched
  MEASURED     rapl:package-0/dram       step 15 uJ  read _
               /sys/class/powercap/intel-rapl:0:0/energy_uj
               why: it did not change in the _ s it was watched
  MEASURED     rapl:package-1            step 61 uJ  read _
               /sys/class/powercap/intel-rapl:1/energy_uj
               why: it did not change in the _ s it was watched
  MEASURED     rapl:package-1/dram       step 15 uJ  read _
               /sys/class/powercap/intel-rapl:1:0/energy_uj
               why: it did not change in the _ s it was watched' \
    "$(meters machine-metal | sed -n '6,17p')"

check 'warnings' 'Warnings
  cpu2 has the frequency governor '\''powersave'\''
               fix: cpupower frequency-set -g performance, as an administrator
  turbo is on: clocks fall as the package heats
               fix: echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo, as
                    an administrator
  other work is running: load average 3.50 on 4 cores
               fix: stop it, or wait until it is done
  1024 MiB of swap are in use
               fix: free memory, then swapoff -a, as an administrator
  the machine runs on battery
               fix: plug it in: speed and power differ on battery
  transparent huge pages are off
               fix: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled,
                    as an administrator' \
    "$("$attnscope" doctor --root "$source/tests/data/machine-metal" | sed -n '/^Warnings/,$p')"

# A wall meter that counts joules is seen twice, and must agree with itself.
meter='n=0; while :; do echo "$(date +%s.%N) 100 $n"; n=$((n + 5)); sleep 0.05; done'
wall=$("$attnscope" doctor --meter-cmd "$meter" | sed -nE '/^Self-test/,/^$/s/: [0-9.e+-]+ J$//p')
case $wall in
*external*external/power*) ;;
*) check 'self-test' 'two views of one meter' "$wall" ;;
esac

# A board controller is asked when that is wanted, through the tool that stands first in the path.
tools=$(mktemp -d)
printf '%s\n' '#!/bin/sh' 'echo "    Instantaneous power reading:                   212 Watts"' >"$tools/ipmitool"
chmod +x "$tools/ipmitool"
dcmi=$(PATH=$tools:$PATH "$attnscope" doctor --meter-dcmi | grep -A 2 '  dcmi/power')
case $dcmi in
'  INTEGRATED   dcmi/power '*'DCMI power reading of the board controller'*'not added to its parts'*) ;;
*) check 'board controller' 'a line of dcmi' "$dcmi" ;;
esac
check 'no board controller is asked unasked' '' "$(PATH=$tools:$PATH "$attnscope" doctor | grep dcmi)"
printf '%s\n' '#!/bin/sh' 'echo "Could not open device at /dev/ipmi0" >&2; exit 1' >"$tools/ipmitool"
refused=$(PATH=$tools:$PATH "$attnscope" doctor --meter-dcmi 2>/dev/null | grep -A 6 'UNAVAILABLE  dcmi')
case $refused in
*'gave no power reading'*'fix: apt-get install ipmitool; let this user read /dev/ipmi0'*) ;;
*) check 'board controller that refuses' 'its reason and remedy' "$refused" ;;
esac
rm -r "$tools"

check 'no line is wider than a terminal' '' "$("$attnscope" doctor | awk 'length > 80')"
check 'no line ends in a space' '' "$("$attnscope" doctor | grep ' $')"

json=$("$attnscope" doctor --json)
check 'status' 0 $?
if command -v python3 >/dev/null; then
    check 'JSON' 'ok' "$(printf '%s' "$json" | python3 -c '
import json, sys
record = json.load(sys.stdin)
for key in ("build", "libraries", "cpu", "memory", "system", "energy_sources", "warnings"):
    assert key in record, key
assert record["build"]["flags"] and record["build"]["version"]
labels = {"MEASURED", "COUNTED", "MODELLED", "UNAVAILABLE"}
assert record["meters"]
for meter in record["meters"]:
    assert meter["label"] in labels and meter["path"]
    assert meter["label"] != "UNAVAILABLE" or meter["why"]
    # Registers that cannot be read can always be helped, if by another machine.
    assert meter["label"] != "UNAVAILABLE" or "rapl" not in meter["name"] or meter["fix"], meter
print("ok")')"
fi

ATTNSCOPE_ISA=mmx "$attnscope" doctor >/dev/null 2>&1
check 'unknown instruction set is a usage error' 2 $?
if [ -w /dev/full ]; then
    "$attnscope" doctor >/dev/full 2>/dev/null
    check 'full disk' 1 $?
fi
[ $failures -eq 0 ]
