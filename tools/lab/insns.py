#!/usr/bin/env python3
"""Turn a BPF object into a C header of raw instructions: one array for each section tc/NAME.

Every relocation must be a 64-bit load of the one map's address: it becomes a BPF_PSEUDO_MAP_FD load whose descriptor the loader fills in.
usage: insns.py OBJECT > labdp.insns.h
"""
import struct
import sys


def main():
    data = open(sys.argv[1], 'rb').read()
    if data[:6] != b'\x7fELF\x02\x01':
        sys.exit('insns.py: not a little-endian ELF64 object')
    shoff, = struct.unpack_from('<Q', data, 40)
    shnum, shstrndx = struct.unpack_from('<HH', data, 60)
    sections = []
    for i in range(shnum):
        name, kind, _flags, _addr, off, size, link, info, _align, _ent = struct.unpack_from('<IIQQQQIIQQ', data, shoff + 64 * i)
        sections.append({'name': name, 'kind': kind, 'off': off, 'size': size, 'link': link, 'info': info})
    strings = sections[shstrndx]['off']
    for s in sections:
        end = data.index(b'\0', strings + s['name'])
        s['name'] = data[strings + s['name']:end].decode()

    def symbol_section(symtab, index):
        return struct.unpack_from('<IBBHQQ', data, sections[symtab]['off'] + 24 * index)[3]

    print('/* Generated from labdp.bpf.c by insns.py (make labdp-regen). Do not edit. */')
    for i, s in enumerate(sections):
        if not s['name'].startswith('tc/') or s['kind'] != 1:
            continue
        code = bytearray(data[s['off']:s['off'] + s['size']])
        for r in sections:
            if r['kind'] != 9 or r['info'] != i:
                continue
            for o in range(r['off'], r['off'] + r['size'], 16):
                where, info = struct.unpack_from('<QQ', data, o)
                if code[where] != 0x18 or sections[symbol_section(r['link'], info >> 32)]['name'] != '.maps':
                    sys.exit('insns.py: %s+%d: only loads of the map may be relocated' % (s['name'], where))
                code[where + 1] = (code[where + 1] & 0x0f) | 0x10
                code[where + 4:where + 8] = bytes(4)
        print('static const unsigned long long labdp_%s[] = {' % s['name'][3:])
        words = struct.unpack('<%dQ' % (len(code) // 8), bytes(code))
        for w in range(0, len(words), 6):
            print('\t' + ' '.join('0x%016xULL,' % x for x in words[w:w + 6]))
        print('};')


main()
