// reaper for AArch64 Linux: what reaper.x86_64.s says in full, call by call in the same order.
// Build:  as -o r.o reaper.aarch64.s && ld -Ttext 0x400000 -o r.elf r.o && objcopy -O binary -j .text r.elf reaper.aarch64
        .text
        .globl _start
base:   .byte 0x7f, 'E', 'L', 'F', 2, 1, 1, 0           // ELF64, little endian
        .zero 8
        .short 2, 183                                   // ET_EXEC, EM_AARCH64
        .long 1
        .quad _start
        .quad segments - base
        .quad 0                                         // no sections
        .long 0
        .short 64, 56, 2, 0, 0, 0
segments:
        .long 1, 5                                      // PT_LOAD, R+X
        .quad 0, base, base
        .quad end - base, end - base
        .quad 0x10000                                   // pages of up to 64 KiB
        .long 0x6474e551, 6                             // PT_GNU_STACK, RW: the stack is not executable
        .quad 0, 0, 0, 0, 0, 16
every:  .quad -1                                        // sigset_t of 64 signals, all in
none:   .quad 0
action: .quad end_of_handler                            // struct sigaction of the kernel: handler,
        .quad 0x04000000                                // SA_RESTORER,
        .quad end_of_handler                            // restorer,
        .quad 0                                         // mask

_start: ldr x19, [sp]                                   // argc
        add x20, sp, #16                                // &argv[1]
        add x21, x20, x19, lsl #3                       // envp
        mov x22, #0                                     // the child's pid; 0: there is none
        sub sp, sp, #144                                // siginfo_t, then the wait status
        mov x0, #0                                      // SIG_BLOCK
        adr x1, every
        bl sigprocmask
        mov x23, #1
install:
        mov x0, x23                                     // rt_sigaction; KILL and STOP refuse, no matter
        adr x1, action
        mov x2, #0
        mov x3, #8
        mov x8, #134
        svc #0
        add x23, x23, #1
        cmp x23, #65
        b.ne install
        cmp x19, #2
        b.lt wait
        mov x0, #17                                     // clone with SIGCHLD alone is fork
        mov x1, #0
        mov x2, #0
        mov x3, #0
        mov x4, #0
        mov x8, #220
        svc #0
        cmp x0, #0
        b.lt failed
        b.eq child
        mov x22, x0

wait:   adr x0, every                                   // rt_sigtimedwait, for ever
        mov x1, sp
        mov x2, #0
        mov x3, #8
        mov x8, #137
        svc #0
        cmp x0, #17                                     // SIGCHLD
        b.eq reap
        cmp x0, #30                                     // SIGPWR
        b.eq term
        cmp x0, #37                                     // SIGRTMIN+3
        b.eq term
        cmp x0, #15                                     // SIGTERM
        b.eq tell
        cmp x0, #2                                      // SIGINT
        b.eq tell
        cbz x22, wait                                   // the rest is for the service alone
        cmp x0, #1                                      // SIGHUP
        b.eq tell
        cmp x0, #3                                      // SIGQUIT
        b.eq tell
        cmp x0, #10                                     // SIGUSR1
        b.eq tell
        cmp x0, #12                                     // SIGUSR2
        b.eq tell
        cmp x0, #28                                     // SIGWINCH
        b.eq tell
        b wait

term:   mov x0, #15
tell:   mov x1, x0
        mov x0, #0
        cbz x22, exit                                   // no service: being told to end is the end
        mov x0, x22
        mov x8, #129                                    // kill
        svc #0
        b wait

reap:   mov x0, #-1                                     // wait4(-1, &status, WNOHANG, NULL)
        add x1, sp, #128
        mov x2, #1
        mov x3, #0
        mov x8, #260
        svc #0
        cmp x0, #0
        b.le wait
        cmp x0, x22
        b.ne reap
        ldr w0, [sp, #128]
        ands w1, w0, #0x7f
        b.ne signalled
        ubfx w0, w0, #8, #8
        b exit
signalled:
        add w0, w1, #128
exit:   mov x8, #94                                     // exit_group
        svc #0

child:  mov x0, #2                                      // SIG_SETMASK
        adr x1, none
        bl sigprocmask
        ldr x0, [x20]
        mov x1, x20
        mov x2, x21
        mov x8, #221                                    // execve
        svc #0
        cmn x0, #2                                      // ENOENT
        mov x0, #127                                    // as a shell: 127 not found, 126 not executable
        b.eq exit
failed: mov x0, #126
        b exit

sigprocmask:
        mov x2, #0
        mov x3, #8
        mov x8, #135
        svc #0
end_of_handler:
        ret
end:
