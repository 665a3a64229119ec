# reaper: PID 1 for a service that does not reap its orphans, or for no service at all. x86-64 Linux, no library.
#
#     reaper COMMAND ARGUMENT…   runs COMMAND, passes on what it is told, reaps all, ends with COMMAND's status
#     reaper                     reaps until it is told to end, then ends with 0
#
# TERM INT HUP QUIT USR1 USR2 WINCH are passed on; PWR (lxc-stop) and RTMIN+3 (systemd's halt) are passed on as TERM.
# Every signal is blocked and fetched with rt_sigtimedwait(2). The handler is never run: it is there so that SigCgt
# in /proc/1/status tells that this PID 1 minds its signals.
# Build:  as -o r.o reaper.x86_64.s && ld -Ttext 0x400000 -o r.elf r.o && objcopy -O binary -j .text r.elf reaper.x86_64
        .intel_syntax noprefix
        .text
        .globl _start
base:   .byte 0x7f, 'E', 'L', 'F', 2, 1, 1, 0           # ELF64, little endian
        .zero 8
        .short 2, 62                                    # ET_EXEC, EM_X86_64
        .long 1
        .quad _start
        .quad segments - base
        .quad 0                                         # no sections
        .long 0
        .short 64, 56, 2, 0, 0, 0
segments:
        .long 1, 5                                      # PT_LOAD, R+X
        .quad 0, base, base
        .quad end - base, end - base
        .quad 0x1000
        .long 0x6474e551, 6                             # PT_GNU_STACK, RW: the stack is not executable
        .quad 0, 0, 0, 0, 0, 16
every:  .quad -1                                        # sigset_t of 64 signals, all in
none:   .quad 0
action: .quad end_of_handler                            # struct sigaction of the kernel: handler,
        .quad 0x04000000                                # SA_RESTORER,
        .quad end_of_handler                            # restorer,
        .quad 0                                         # mask

_start: mov r12, [rsp]                                  # argc
        lea r13, [rsp + 16]                             # &argv[1]
        lea r14, [rsp + r12*8 + 16]                     # envp
        xor ebp, ebp                                    # the child's pid; 0: there is none
        sub rsp, 144                                    # siginfo_t, then the wait status
        xor edi, edi                                    # SIG_BLOCK
        lea rsi, [every]
        call sigprocmask
        mov ebx, 1
install:
        mov edi, ebx                                    # rt_sigaction; KILL and STOP refuse, no matter
        lea rsi, [action]
        xor edx, edx
        mov r10d, 8
        mov eax, 13
        syscall
        inc ebx
        cmp ebx, 65
        jne install
        cmp r12, 2
        jl wait
        mov eax, 57                                     # fork
        syscall
        test rax, rax
        js failed
        jz child
        mov ebp, eax

wait:   lea rdi, [every]                                # rt_sigtimedwait, for ever
        mov rsi, rsp
        xor edx, edx
        mov r10d, 8
        mov eax, 128
        syscall
        cmp eax, 17                                     # SIGCHLD
        je reap
        cmp eax, 30                                     # SIGPWR
        je term
        cmp eax, 37                                     # SIGRTMIN+3
        je term
        cmp eax, 15                                     # SIGTERM
        je tell
        cmp eax, 2                                      # SIGINT
        je tell
        test ebp, ebp                                   # the rest is for the service alone
        jz wait
        cmp eax, 1                                      # SIGHUP
        je tell
        cmp eax, 3                                      # SIGQUIT
        je tell
        cmp eax, 10                                     # SIGUSR1
        je tell
        cmp eax, 12                                     # SIGUSR2
        je tell
        cmp eax, 28                                     # SIGWINCH
        je tell
        jmp wait

term:   mov eax, 15
tell:   xor edi, edi
        test ebp, ebp
        jz exit                                         # no service: being told to end is the end
        mov edi, ebp
        mov esi, eax
        mov eax, 62                                     # kill
        syscall
        jmp wait

reap:   mov rdi, -1                                     # wait4(-1, &status, WNOHANG, NULL)
        lea rsi, [rsp + 128]
        mov edx, 1
        xor r10d, r10d
        mov eax, 61
        syscall
        test eax, eax
        jle wait
        cmp eax, ebp
        jne reap
        mov edi, [rsp + 128]
        mov eax, edi
        and eax, 0x7f
        jnz signalled
        shr edi, 8
        and edi, 0xff
        jmp exit
signalled:
        lea edi, [rax + 128]
exit:   mov eax, 231                                    # exit_group
        syscall

child:  mov edi, 2                                      # SIG_SETMASK
        lea rsi, [none]
        call sigprocmask
        mov rdi, [r13]
        mov rsi, r13
        mov rdx, r14
        mov eax, 59                                     # execve
        syscall
        mov edi, 127                                    # as a shell: 127 not found, 126 not executable
        cmp rax, -2                                     # ENOENT
        je exit
failed: mov edi, 126
        jmp exit

sigprocmask:
        xor edx, edx
        mov r10d, 8
        mov eax, 14
        syscall
end_of_handler:
        ret
end:
