// Fault injection for tests: a named point in the code that can be told to fail, as if the disk were full, or to kill
// the process there. The environment PMETAL_FAULT="point:n[:kill]" names the point and its n-th passage (from 1) when
// the program starts. Points are listed where they are passed ("write", "sync", "rename" in file.cc).
#pragma once

namespace pmetal {

// true when this passage is the one that must fail; does not return when it must kill. One load when nothing is set.
bool fault_due(const char* point);

// Sets what PMETAL_FAULT sets and counts passages anew; nullptr: no fault. For tests; no other thread may be in
// fault_due() meanwhile. Throws Error(kUsage) on a text it does not understand.
void set_fault(const char* text);

}  // namespace pmetal
