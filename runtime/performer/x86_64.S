# The start program's interpreter: walks the records that runtime/records.py writes. It has no stack, no heap and no
# relocation, and changes nothing but rax, rcx, rdx, rdi, rsi, r8-r11, rbp and its slots: two processes may share it.
#
#   as --64 -o x.o x86_64.S; ld -Ttext=0x400140 -o x x.o; objcopy -O binary -j .text x x.bin
#
# A record, 64 bytes: 0 call or operation (u16) · 2 slot of the result (u16) · 4 records to skip (u16) · 6 number that a
# failure reports (u16) · 8 which arguments are slots (u8, bit 0 the first) · 9 width (u8) · 10 six errnos to ignore
# (u8) · 16 six arguments (u64). An argument that is a slot is replaced by what the slot holds.

        .intel_syntax noprefix
        .set    SLOTS, 0x500000         # of u64, at the head of the data; what they are is in records.py
        .set    START, SLOTS + 8        # the record to begin with
        .set    HANDLER, SLOTS + 16     # the record that a failure goes to
        .set    FAILED, SLOTS + 24      # what failed: the record's number
        .set    ERRNO, SLOTS + 32       # … and why; 0 for an unexpected answer
        .set    STACK, SLOTS + 40       # argc, argv and the environment: the System V ABI, 3.4.1
        .set    RECORD, SLOTS + 48      # the record that failed

        .text
        .globl  _start
_start: mov     [STACK], rsp
        mov     rbx, [START]
        jmp     run

next:   add     rbx, 64
run:    movzx   ebp, byte ptr [rbx + 8]
        .macro  take register, offset
        mov     \register, [rbx + \offset]
        shr     ebp, 1
        jnc     1f
        mov     \register, [SLOTS + \register * 8]
1:
        .endm
        take    rdi, 16
        take    rsi, 24
        take    rdx, 32
        take    r10, 40
        take    r8, 48
        take    r9, 56
        movzx   eax, word ptr [rbx]
        cmp     eax, 0x1000
        jae     operation
        syscall
        cmp     rax, -4095
        jae     failed
keep:   movzx   ecx, word ptr [rbx + 2]
        mov     [SLOTS + rcx * 8], rax
        jmp     next

failed: neg     eax
        mov     rdx, [rbx + 8]
        shr     rdx, 16
        cmp     dl, 0xff                # whatever it is
        je      skip
1:      cmp     dl, al                  # no errno is 0, so an empty place never matches
        je      skip
        shr     rdx, 8
        jnz     1b
fail:   mov     [ERRNO], rax
        movzx   ecx, word ptr [rbx + 6]
        mov     [FAILED], rcx
        mov     [RECORD], rbx
        mov     rbx, [HANDLER]
        jmp     run
skip:   movzx   ecx, word ptr [rbx + 2]
        or      rax, -1                 # no descriptor: what uses it says EBADF
        mov     [SLOTS + rcx * 8], rax
        movzx   ecx, word ptr [rbx + 4]
        shl     ecx, 6
        add     rbx, rcx
        jmp     next

operation:
        movzx   ecx, byte ptr [rbx + 9]
        and     eax, 0xfff
        jz      add                     # 0x1000 ADD
        dec     eax
        jz      branch                  # 0x1001 BRANCH
        dec     eax
        jz      clear                   # 0x1002 CLEAR
        dec     eax
        jz      store                   # 0x1003 STORE
        dec     eax
        jz      load                    # 0x1004 LOAD
        dec     eax
        jz      load                    # 0x1005 EXPECT
        dec     eax
        jz      text                    # 0x1006 TEXT
        dec     eax
        jz      field                   # 0x1007 FIELD
        dec     eax
        jz      cut                     # 0x1008 CUT
        dec     eax
        jz      find                    # 0x1009 FIND
        hlt                             # a record that nobody wrote

add:    lea     rax, [rdi + rsi]        # ADD a, b: their sum
        jmp     keep

branch: cmp     rdi, rsi                # BRANCH a, b, to: where a is b, go on at `to`
        jne     next
        mov     rbx, rdx
        jmp     run

clear:  mov     ecx, esi                # CLEAR address, bytes
        xor     eax, eax
        rep stosb
        jmp     next

store:  mov     eax, esi                # STORE address, value; `width` bytes
        stosb
        shr     rsi, 8
        dec     ecx
        jnz     store
        jmp     next

load:   lea     rdi, [rdi + rsi * 8]    # LOAD address, index of u64: `width` bytes
        xor     eax, eax
1:      shl     rax, 8
        mov     al, [rdi + rcx - 1]
        dec     ecx
        jnz     1b
        cmp     word ptr [rbx], 0x1004
        je      keep
        and     rax, rdx                # EXPECT address, 0, mask, value: fails as errno 0
        cmp     rax, r10
        je      next
        xor     eax, eax
        jmp     fail

text:   mov     r11, rdi                # TEXT to, form, up to four values: 1 is a decimal, 2 a string; its length
1:      lodsb
        cmp     al, 1
        je      number
        cmp     al, 2
        je      string
        stosb
        test    al, al
        jnz     1b
        lea     rax, [rdi - 1]
        sub     rax, r11
        jmp     keep

string: mov     al, [rdx]
        inc     rdx
        test    al, al
        jz      2f
        stosb
        jmp     string
2:      mov     rdx, r10                # the next value moves up
        mov     r10, r8
        mov     r8, r9
        jmp     1b

number: mov     rbp, rdx
        mov     rax, rdx
        mov     ecx, 10
1:      inc     rdi                     # as many places as it has digits
        xor     edx, edx
        div     rcx
        test    rax, rax
        jnz     1b
        mov     rax, rbp
        mov     rbp, rdi
1:      dec     rdi
        xor     edx, edx
        div     rcx
        add     dl, '0'
        mov     [rdi], dl
        test    rax, rax
        jnz     1b
        mov     rdi, rbp
        jmp     2b

field:  xor     eax, eax                # FIELD text, number: the decimal after so many spaces
1:      test    esi, esi
        jz      2f
        cmp     byte ptr [rdi], ' '
        sete    cl
        movzx   ecx, cl
        sub     esi, ecx
        inc     rdi
        jmp     1b
2:      movzx   ecx, byte ptr [rdi]
        sub     ecx, '0'
        cmp     ecx, 9
        ja      keep
        lea     rax, [rax + rax * 4]
        lea     rax, [rcx + rax * 2]
        inc     rdi
        jmp     2b

cut:    mov     al, [rdi]               # CUT text: end it before what is no printable ASCII, or a space
        sub     al, '!'
        cmp     al, '~' - '!'
        ja      1f
        inc     rdi
        jmp     cut
1:      mov     byte ptr [rdi], 0
        jmp     next

find:   mov     rax, rdi                # FIND address, bytes, four bytes: where they are, or 0
        cmp     [rdi], edx
        je      keep
        inc     rdi
        dec     esi
        jnz     find
        xor     eax, eax
        jmp     keep
