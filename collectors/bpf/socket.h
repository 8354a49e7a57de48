// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// A socket's addresses, in an event's detail: family, ports in host order, addresses as they stand in the socket.
#define DETAIL_BYTES 40
#include "event.h"
#include "addresses.h"

enum { ESTABLISHED = 1, SYN_SENT = 2, SYN_RECV = 3, CLOSE = 7 };
