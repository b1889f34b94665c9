// Package lvmtest holds runners for tests of code that uses lvmops: recorded transcripts and a small stateful fake.
// It starts no goroutine and touches nothing outside the directories it is given.
package lvmtest
