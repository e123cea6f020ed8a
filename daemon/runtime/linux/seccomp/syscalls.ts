/**
 * The system calls of Linux up to 6.17: name, number on x86-64, i386 and arm64 (`-`: not there), and who may make it
 * under the default profile, which follows docker's: everybody when nothing is said, `!` nobody, else a capability of
 * which one suffices; `*` depends on the arguments (see profile.ts).
 */
const TABLE = `
read 0 3 63
write 1 4 64
open 2 5 -
close 3 6 57
stat 4 106 -
fstat 5 108 80
lstat 6 107 -
poll 7 168 -
lseek 8 19 62
mmap 9 90 222
mprotect 10 125 226
munmap 11 91 215
brk 12 45 214
rt_sigaction 13 174 134
rt_sigprocmask 14 175 135
rt_sigreturn 15 173 139
ioctl 16 54 29
pread64 17 180 67
pwrite64 18 181 68
readv 19 145 65
writev 20 146 66
access 21 33 -
pipe 22 42 -
select 23 82 -
sched_yield 24 158 124
mremap 25 163 216
msync 26 144 227
mincore 27 218 232
madvise 28 219 233
shmget 29 395 194
shmat 30 397 196
shmctl 31 396 195
dup 32 41 23
dup2 33 63 -
pause 34 29 -
nanosleep 35 162 101
getitimer 36 105 102
alarm 37 27 -
setitimer 38 104 103
getpid 39 20 172
sendfile 40 187 71
socket 41 359 198 *
connect 42 362 203
accept 43 - 202
sendto 44 369 206
recvfrom 45 371 207
sendmsg 46 370 211
recvmsg 47 372 212
shutdown 48 373 210
bind 49 361 200
listen 50 363 201
getsockname 51 367 204
getpeername 52 368 205
socketpair 53 360 199
setsockopt 54 366 208
getsockopt 55 365 209
clone 56 120 220 *
fork 57 2 -
vfork 58 190 -
execve 59 11 221
exit 60 1 93
wait4 61 114 260
kill 62 37 129
uname 63 122 160
semget 64 393 190
semop 65 - 193
semctl 66 394 191
shmdt 67 398 197
msgget 68 399 186
msgsnd 69 400 189
msgrcv 70 401 188
msgctl 71 402 187
fcntl 72 55 25
flock 73 143 32
fsync 74 118 82
fdatasync 75 148 83
truncate 76 92 45
ftruncate 77 93 46
getdents 78 141 -
getcwd 79 183 17
chdir 80 12 49
fchdir 81 133 50
rename 82 38 -
mkdir 83 39 -
rmdir 84 40 -
creat 85 8 -
link 86 9 -
unlink 87 10 -
symlink 88 83 -
readlink 89 85 -
chmod 90 15 -
fchmod 91 94 52
chown 92 182 -
fchown 93 95 55
lchown 94 16 -
umask 95 60 166
gettimeofday 96 78 169
getrlimit 97 76 163
getrusage 98 77 165
sysinfo 99 116 179
times 100 43 153
ptrace 101 26 117
getuid 102 24 174
syslog 103 103 116 SYS_ADMIN|SYSLOG
getgid 104 47 176
setuid 105 23 146
setgid 106 46 144
geteuid 107 49 175
getegid 108 50 177
setpgid 109 57 154
getppid 110 64 173
getpgrp 111 65 -
setsid 112 66 157
setreuid 113 70 145
setregid 114 71 143
getgroups 115 80 158
setgroups 116 81 159
setresuid 117 164 147
getresuid 118 165 148
setresgid 119 170 149
getresgid 120 171 150
getpgid 121 132 155
setfsuid 122 138 151
setfsgid 123 139 152
getsid 124 147 156
capget 125 184 90
capset 126 185 91
rt_sigpending 127 176 136
rt_sigtimedwait 128 177 137
rt_sigqueueinfo 129 178 138
rt_sigsuspend 130 179 133
sigaltstack 131 186 132
utime 132 30 -
mknod 133 14 -
uselib 134 86 - !
personality 135 136 92 *
ustat 136 62 - !
statfs 137 99 43
fstatfs 138 100 44
sysfs 139 135 - !
getpriority 140 96 141
setpriority 141 97 140
sched_setparam 142 154 118
sched_getparam 143 155 121
sched_setscheduler 144 156 119
sched_getscheduler 145 157 120
sched_get_priority_max 146 159 125
sched_get_priority_min 147 160 126
sched_rr_get_interval 148 161 127
mlock 149 150 228
munlock 150 151 229
mlockall 151 152 230
munlockall 152 153 231
vhangup 153 111 58 SYS_TTY_CONFIG
modify_ldt 154 123 -
pivot_root 155 217 41 !
_sysctl 156 149 - !
prctl 157 172 167
arch_prctl 158 384 -
adjtimex 159 124 171
setrlimit 160 75 164
chroot 161 61 51 SYS_CHROOT
sync 162 36 81
acct 163 51 89 SYS_PACCT
settimeofday 164 79 170 SYS_TIME
mount 165 21 40 SYS_ADMIN
umount2 166 52 39 SYS_ADMIN
swapon 167 87 224 !
swapoff 168 115 225 !
reboot 169 88 142 SYS_BOOT
sethostname 170 74 161 SYS_ADMIN
setdomainname 171 121 162 SYS_ADMIN
iopl 172 110 - SYS_RAWIO
ioperm 173 101 - SYS_RAWIO
create_module 174 127 - !
init_module 175 128 105 SYS_MODULE
delete_module 176 129 106 SYS_MODULE
get_kernel_syms 177 130 - !
query_module 178 167 - !
quotactl 179 131 60 SYS_ADMIN
nfsservctl 180 169 42 !
getpmsg 181 188 - !
putpmsg 182 189 - !
afs_syscall 183 137 - !
tuxcall 184 - - !
security 185 - - !
gettid 186 224 178
readahead 187 225 213
setxattr 188 226 5
lsetxattr 189 227 6
fsetxattr 190 228 7
getxattr 191 229 8
lgetxattr 192 230 9
fgetxattr 193 231 10
listxattr 194 232 11
llistxattr 195 233 12
flistxattr 196 234 13
removexattr 197 235 14
lremovexattr 198 236 15
fremovexattr 199 237 16
tkill 200 238 130
time 201 13 -
futex 202 240 98
sched_setaffinity 203 241 122
sched_getaffinity 204 242 123
set_thread_area 205 243 -
io_setup 206 245 0
io_destroy 207 246 1
io_getevents 208 247 4
io_submit 209 248 2
io_cancel 210 249 3
get_thread_area 211 244 -
lookup_dcookie 212 253 18 SYS_ADMIN
epoll_create 213 254 -
epoll_ctl_old 214 - -
epoll_wait_old 215 - -
remap_file_pages 216 257 234
getdents64 217 220 61
set_tid_address 218 258 96
restart_syscall 219 0 128
semtimedop 220 - 192
fadvise64 221 250 223
timer_create 222 259 107
timer_settime 223 260 110
timer_gettime 224 261 108
timer_getoverrun 225 262 109
timer_delete 226 263 111
clock_settime 227 264 112 SYS_TIME
clock_gettime 228 265 113
clock_getres 229 266 114
clock_nanosleep 230 267 115
exit_group 231 252 94
epoll_wait 232 256 -
epoll_ctl 233 255 21
tgkill 234 270 131
utimes 235 271 -
vserver 236 273 - !
mbind 237 274 235 SYS_NICE
set_mempolicy 238 276 237 SYS_NICE
get_mempolicy 239 275 236 SYS_NICE
mq_open 240 277 180
mq_unlink 241 278 181
mq_timedsend 242 279 182
mq_timedreceive 243 280 183
mq_notify 244 281 184
mq_getsetattr 245 282 185
kexec_load 246 283 104 !
waitid 247 284 95
add_key 248 286 217 !
request_key 249 287 218 !
keyctl 250 288 219 !
ioprio_set 251 289 30
ioprio_get 252 290 31
inotify_init 253 291 -
inotify_add_watch 254 292 27
inotify_rm_watch 255 293 28
migrate_pages 256 294 238 !
openat 257 295 56
mkdirat 258 296 34
mknodat 259 297 33
fchownat 260 298 54
futimesat 261 299 -
newfstatat 262 - 79
unlinkat 263 301 35
renameat 264 302 38
linkat 265 303 37
symlinkat 266 304 36
readlinkat 267 305 78
fchmodat 268 306 53
faccessat 269 307 48
pselect6 270 308 72
ppoll 271 309 73
unshare 272 310 97 SYS_ADMIN
set_robust_list 273 311 99
get_robust_list 274 312 100
splice 275 313 76
tee 276 315 77
sync_file_range 277 314 84
vmsplice 278 316 75
move_pages 279 317 239 !
utimensat 280 320 88
epoll_pwait 281 319 22
signalfd 282 321 -
timerfd_create 283 322 85
eventfd 284 323 -
fallocate 285 324 47
timerfd_settime 286 325 86
timerfd_gettime 287 326 87
accept4 288 364 242
signalfd4 289 327 74
eventfd2 290 328 19
epoll_create1 291 329 20
dup3 292 330 24
pipe2 293 331 59
inotify_init1 294 332 26
preadv 295 333 69
pwritev 296 334 70
rt_tgsigqueueinfo 297 335 240
perf_event_open 298 336 241 SYS_ADMIN|PERFMON
recvmmsg 299 337 243
fanotify_init 300 338 262 SYS_ADMIN
fanotify_mark 301 339 263
prlimit64 302 340 261
name_to_handle_at 303 341 264
open_by_handle_at 304 342 265 DAC_READ_SEARCH
clock_adjtime 305 343 266
syncfs 306 344 267
sendmmsg 307 345 269
setns 308 346 268 SYS_ADMIN
getcpu 309 318 168
process_vm_readv 310 347 270
process_vm_writev 311 348 271
kcmp 312 349 272 SYS_PTRACE
finit_module 313 350 273 SYS_MODULE
sched_setattr 314 351 274
sched_getattr 315 352 275
renameat2 316 353 276
seccomp 317 354 277
getrandom 318 355 278
memfd_create 319 356 279
kexec_file_load 320 - 294 !
bpf 321 357 280 SYS_ADMIN|BPF
execveat 322 358 281
userfaultfd 323 374 282 !
membarrier 324 375 283
mlock2 325 376 284
copy_file_range 326 377 285
preadv2 327 378 286
pwritev2 328 379 287
pkey_mprotect 329 380 288
pkey_alloc 330 381 289
pkey_free 331 382 290
statx 332 383 291
io_pgetevents 333 385 292
rseq 334 386 293
uretprobe 335 - -
pidfd_send_signal 424 424 424
io_uring_setup 425 425 425 !
io_uring_enter 426 426 426 !
io_uring_register 427 427 427 !
open_tree 428 428 428 SYS_ADMIN
move_mount 429 429 429 SYS_ADMIN
fsopen 430 430 430 SYS_ADMIN
fsconfig 431 431 431 SYS_ADMIN
fsmount 432 432 432 SYS_ADMIN
fspick 433 433 433 SYS_ADMIN
pidfd_open 434 434 434
clone3 435 435 435 *
close_range 436 436 436
openat2 437 437 437
pidfd_getfd 438 438 438 SYS_PTRACE
faccessat2 439 439 439
process_madvise 440 440 440 SYS_PTRACE
epoll_pwait2 441 441 441
mount_setattr 442 442 442 SYS_ADMIN
quotactl_fd 443 443 443 SYS_ADMIN
landlock_create_ruleset 444 444 444
landlock_add_rule 445 445 445
landlock_restrict_self 446 446 446
memfd_secret 447 447 447
process_mrelease 448 448 448
futex_waitv 449 449 449
set_mempolicy_home_node 450 450 450 SYS_NICE
cachestat 451 451 451
fchmodat2 452 452 452
map_shadow_stack 453 453 453
futex_wake 454 454 454
futex_wait 455 455 455
futex_requeue 456 456 456
statmount 457 457 457
listmount 458 458 458
lsm_get_self_attr 459 459 459 SYS_ADMIN
lsm_set_self_attr 460 460 460 SYS_ADMIN
lsm_list_modules 461 461 461 SYS_ADMIN
mseal 462 462 462
setxattrat 463 463 463
getxattrat 464 464 464
listxattrat 465 465 465
removexattrat 466 466 466
open_tree_attr 467 467 467 !
file_getattr 468 468 468 !
file_setattr 469 469 469 !
waitpid - 7 -
break - 17 - !
oldstat - 18 - !
umount - 22 - SYS_ADMIN
stime - 25 - SYS_TIME
oldfstat - 28 - !
stty - 31 - !
gtty - 32 - !
nice - 34 - !
ftime - 35 - !
prof - 44 - !
signal - 48 - !
lock - 53 - !
mpx - 56 - !
ulimit - 58 - !
oldolduname - 59 - !
sigaction - 67 - !
sgetmask - 68 - !
ssetmask - 69 - !
sigsuspend - 72 - !
sigpending - 73 - !
oldlstat - 84 - !
readdir - 89 - !
profil - 98 - !
socketcall - 102 -
olduname - 109 - !
idle - 112 - !
vm86old - 113 - !
ipc - 117 -
sigreturn - 119 -
sigprocmask - 126 -
bdflush - 134 - !
_llseek - 140 -
_newselect - 142 -
vm86 - 166 - !
ugetrlimit - 191 -
mmap2 - 192 -
truncate64 - 193 -
ftruncate64 - 194 -
stat64 - 195 -
lstat64 - 196 -
fstat64 - 197 -
lchown32 - 198 -
getuid32 - 199 -
getgid32 - 200 -
geteuid32 - 201 -
getegid32 - 202 -
setreuid32 - 203 -
setregid32 - 204 -
getgroups32 - 205 -
setgroups32 - 206 -
fchown32 - 207 -
setresuid32 - 208 -
getresuid32 - 209 -
setresgid32 - 210 -
getresgid32 - 211 -
chown32 - 212 -
setuid32 - 213 -
setgid32 - 214 -
setfsuid32 - 215 -
setfsgid32 - 216 -
fcntl64 - 221 -
sendfile64 - 239 -
statfs64 - 268 -
fstatfs64 - 269 -
fadvise64_64 - 272 -
fstatat64 - 300 -
clock_gettime64 - 403 -
clock_settime64 - 404 - SYS_TIME
clock_adjtime64 - 405 -
clock_getres_time64 - 406 -
clock_nanosleep_time64 - 407 -
timer_gettime64 - 408 -
timer_settime64 - 409 -
timerfd_gettime64 - 410 -
timerfd_settime64 - 411 -
utimensat_time64 - 412 -
pselect6_time64 - 413 -
ppoll_time64 - 414 -
io_pgetevents_time64 - 416 -
recvmmsg_time64 - 417 -
mq_timedsend_time64 - 418 -
mq_timedreceive_time64 - 419 -
semtimedop_time64 - 420 -
rt_sigtimedwait_time64 - 421 -
futex_time64 - 422 -
sched_rr_get_interval_time64 - 423 -
`;

/** Machines whose numbers are known. */
export type Machine = 'x86_64' | 'x86' | 'aarch64';

/** One system call. */
export interface Syscall {
  name: string;
  numbers: Record<Machine, number | undefined>;
  /** `''`, `!`, `*` or capabilities without `CAP_`, separated by `|`. */
  gate: string;
}

/** All of them. */
export const SYSCALLS: readonly Syscall[] = TABLE.trim()
  .split('\n')
  .map((line) => {
    const [name, x64, x86, arm64, gate] = line.split(' ');
    const number = (text: string | undefined): number | undefined =>
      text === '-' ? undefined : Number(text);
    return {
      name: name!,
      numbers: { x86_64: number(x64), x86: number(x86), aarch64: number(arm64) },
      gate: gate ?? '',
    };
  });

/** Numbers by name. */
export const SYSCALLS_BY_NAME: ReadonlyMap<string, Syscall> = new Map(
  SYSCALLS.map((syscall) => [syscall.name, syscall]),
);

/** The highest number in the table; what is above is newer than this program. */
export const NEWEST_SYSCALL: number = Math.max(
  ...SYSCALLS.flatMap(({ numbers }) => Object.values(numbers).map((number) => number ?? 0)),
);
