# The smallest web server: answers each connection to port 8080 with one text. Static, no libc; ends on SIGTERM.
    .globl _start
    .text
_start:
    mov $41, %eax               # socket(AF_INET, SOCK_STREAM, 0)
    mov $2, %edi
    mov $1, %esi
    xor %edx, %edx
    syscall
    mov %eax, %ebx
    mov $54, %eax               # setsockopt(…, SOL_SOCKET, SO_REUSEADDR, 1)
    mov %ebx, %edi
    mov $1, %esi
    mov $2, %edx
    lea one(%rip), %r10
    mov $4, %r8d
    syscall
    mov $49, %eax               # bind(…, 0.0.0.0:8080)
    mov %ebx, %edi
    lea address(%rip), %rsi
    mov $16, %edx
    syscall
    test %eax, %eax
    jnz fail
    mov $50, %eax               # listen(…, 16)
    mov %ebx, %edi
    mov $16, %esi
    syscall
next:
    mov $43, %eax               # accept(…)
    mov %ebx, %edi
    xor %esi, %esi
    xor %edx, %edx
    syscall
    mov %eax, %ebp
    xor %eax, %eax              # read what is asked: whatever it is
    mov %ebp, %edi
    lea asked(%rip), %rsi
    mov $4096, %edx
    syscall
    mov $1, %eax                # write the answer
    mov %ebp, %edi
    lea answer(%rip), %rsi
    mov $(end - answer), %edx
    syscall
    mov $3, %eax                # close
    mov %ebp, %edi
    syscall
    jmp next
fail:
    mov $60, %eax
    mov $1, %edi
    syscall
    .data
one: .long 1
address: .short 2
    .byte 0x1f, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
answer: .ascii "HTTP/1.0 200 OK\r\nContent-Length: 15\r\n\r\nstatic, alone.\n"
end:
    .bss
    .lcomm asked, 4096
