"""Confine this process once it has loaded all that it needs: no new files, sockets or processes until it ends.

For code that computes on another party's behalf and needs its pipes and its memory alone. Two fences: limits of the
system (`RLIMIT_NOFILE` and `RLIMIT_NPROC` of 0), and a filter of the kernel (seccomp, x86_64 and aarch64) that allows
the calls which computing takes and refuses every other one, of all threads. Promise: neither can be undone by the
process, but the limits can by the superuser, so a filter that the kernel refuses is told. seccomp(2), prctl(2).
"""

import ctypes
import os
import platform
import resource
import signal
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

_NO_NEW_PRIVILEGES, _SET_NAME, _SET_DUMPABLE, _DIES_WITH_PARENT = 38, 15, 4, 1  # of prctl
_SET_FILTER, _ALL_THREADS = 1, 1  # of seccomp
_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_REFUSED, _UNKNOWN = 1, 38  # EPERM, ENOSYS
_THREAD = 0x10000  # of clone: it shares its memory and its limits
_OTHER_ABI = 0x40000000  # calls of the x32 ABI, whose numbers begin there
# One instruction of the filter: code, jumps if true and false, value. linux/filter.h, linux/bpf_common.h
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16  # where a call's number, machine and arguments stand
# Calls of the tables below that are judged by their arguments, or allowed to none.
_JUDGED = frozenset({"clone", "clone3", "ioctl", "prctl", "prlimit64", "seccomp", "tgkill"})
# What computing takes: memory, threads, clocks, and reading and writing what is open.
_X86 = MappingProxyType(
    {
        "read": 0,
        "write": 1,
        "close": 3,
        "fstat": 5,
        "lseek": 8,
        "mmap": 9,
        "mprotect": 10,
        "munmap": 11,
        "brk": 12,
        "rt_sigaction": 13,
        "rt_sigprocmask": 14,
        "rt_sigreturn": 15,
        "ioctl": 16,
        "pread64": 17,
        "readv": 19,
        "writev": 20,
        "sched_yield": 24,
        "mremap": 25,
        "mincore": 27,
        "madvise": 28,
        "nanosleep": 35,
        "getpid": 39,
        "clone": 56,
        "exit": 60,
        "uname": 63,
        "gettimeofday": 96,
        "getrusage": 98,
        "sysinfo": 99,
        "getuid": 102,
        "getppid": 110,
        "sigaltstack": 131,
        "prctl": 157,
        "gettid": 186,
        "futex": 202,
        "sched_getaffinity": 204,
        "set_tid_address": 218,
        "restart_syscall": 219,
        "clock_gettime": 228,
        "clock_getres": 229,
        "clock_nanosleep": 230,
        "exit_group": 231,
        "tgkill": 234,
        "set_robust_list": 273,
        "get_robust_list": 274,
        "prlimit64": 302,
        "getcpu": 309,
        "seccomp": 317,
        "getrandom": 318,
        "membarrier": 324,
        "rseq": 334,
        "clone3": 435,
    }
)
_ARM = MappingProxyType(
    {
        "ioctl": 29,
        "close": 57,
        "lseek": 62,
        "read": 63,
        "write": 64,
        "readv": 65,
        "writev": 66,
        "pread64": 67,
        "fstat": 80,
        "exit": 93,
        "exit_group": 94,
        "set_tid_address": 96,
        "futex": 98,
        "set_robust_list": 99,
        "get_robust_list": 100,
        "nanosleep": 101,
        "clock_gettime": 113,
        "clock_getres": 114,
        "clock_nanosleep": 115,
        "sched_getaffinity": 123,
        "sched_yield": 124,
        "restart_syscall": 128,
        "tgkill": 131,
        "sigaltstack": 132,
        "rt_sigaction": 134,
        "rt_sigprocmask": 135,
        "rt_sigreturn": 139,
        "uname": 160,
        "getrusage": 165,
        "prctl": 167,
        "getcpu": 168,
        "gettimeofday": 169,
        "getpid": 172,
        "getppid": 173,
        "getuid": 174,
        "gettid": 178,
        "sysinfo": 179,
        "brk": 214,
        "munmap": 215,
        "mremap": 216,
        "clone": 220,
        "mmap": 222,
        "mprotect": 226,
        "mincore": 232,
        "madvise": 233,
        "prlimit64": 261,
        "seccomp": 277,
        "getrandom": 278,
        "membarrier": 283,
        "rseq": 293,
        "clone3": 435,
    }
)


@dataclass(frozen=True, slots=True)
class _Machine:
    """A machine by its number in linux/audit.h, and the numbers of its calls."""

    number: int
    calls: Mapping[str, int]
    has_other_abi: bool = False


_MACHINES: Mapping[str, _Machine] = MappingProxyType(
    {"x86_64": _Machine(0xC000003E, _X86, has_other_abi=True), "aarch64": _Machine(0xC00000B7, _ARM)}
)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def end_with_parent(parent: int) -> None:
    """Let the kernel end this process when the thread that started it ends; raises SystemExit if it has already.

    `parent` is the process that started this one. Elsewhere than on Linux the closing of the pipe ends it.
    """
    _prctl(_DIES_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)


def confine(*, has_device: bool = False) -> str:
    """Confine this process for good. Return why the filter does not stand; empty where it does.

    The limits stand in any case. `has_device` allows the calls (ioctl) by which a loaded driver reaches its device.
    """
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))
    _prctl(_SET_DUMPABLE, 0)
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return f"there is no filter for the machine {platform.machine()[:40]!r}"
    if _prctl(_NO_NEW_PRIVILEGES, 1):
        return "the kernel refuses to give up new privileges"
    code = b"".join(_INSTRUCTION.pack(*one) for one in _filter(machine, os.getpid(), has_device=has_device))
    program = _Program(len(code) // _INSTRUCTION.size, code)
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(machine.calls["seccomp"], _SET_FILTER, _ALL_THREADS, ctypes.byref(program)):
        return f"the kernel refuses the filter (error {ctypes.get_errno()})"
    return ""


def _prctl(what: int, value: int) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "prctl"):
        return -1
    return int(library.prctl(what, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)))


def _filter(machine: _Machine, process: int, *, has_device: bool) -> Iterator[tuple[int, int, int, int]]:
    """Yield the instructions of the filter: another machine kills, what is not allowed is refused."""
    yield _LOAD, 0, 0, _MACHINE
    yield _IF_EQUAL, 1, 0, machine.number
    yield _RETURN, 0, 0, _KILL
    yield _LOAD, 0, 0, _NUMBER
    if machine.has_other_abi:
        yield _IF_AT_LEAST, 0, 1, _OTHER_ABI
        yield _RETURN, 0, 0, _ERRNO | _REFUSED
    for name in machine.calls.keys() - _JUDGED | ({"ioctl"} if has_device else set()):
        yield _IF_EQUAL, 0, 1, machine.calls[name]
        yield _RETURN, 0, 0, _ALLOW
    yield from _only(machine.calls["clone"], (_IF_SET, 0, _THREAD))  # a thread, and no process
    yield from _only(machine.calls["tgkill"], (_IF_EQUAL, 0, process))  # a signal to itself, as an abort is
    yield from _only(machine.calls["prctl"], (_IF_EQUAL, 0, _SET_NAME))  # the name of a thread
    # Limits are read and never set: the address of new ones is 0, in both halves.
    low = _ARGUMENTS + 2 * 8
    yield _IF_EQUAL, 0, 5, machine.calls["prlimit64"]
    yield _LOAD, 0, 0, low
    yield _IF_EQUAL, 0, 5, 0
    yield _LOAD, 0, 0, low + 4
    yield _IF_EQUAL, 0, 3, 0
    yield _RETURN, 0, 0, _ALLOW
    # The C library tries clone3 first, whose flags no filter can read, and then takes clone.
    yield _IF_EQUAL, 0, 1, machine.calls["clone3"]
    yield _RETURN, 0, 0, _ERRNO | _UNKNOWN
    yield _RETURN, 0, 0, _ERRNO | _REFUSED


def _only(call: int, condition: tuple[int, int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield the instructions that allow a call by the low half of an argument, and refuse it otherwise."""
    test, argument, value = condition
    yield _IF_EQUAL, 0, 4, call
    yield _LOAD, 0, 0, _ARGUMENTS + 8 * argument
    yield test, 0, 1, value
    yield _RETURN, 0, 0, _ALLOW
    yield _RETURN, 0, 0, _ERRNO | _REFUSED
