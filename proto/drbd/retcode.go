package drbd

import "fmt"

// RetCode is the outcome of a state change (enum drbd_state_rv, linux/drbd.h). 1 and above mean success.
type RetCode int32

// The outcomes.
const (
	SSCWNoNeed           RetCode = 4
	SSCWSuccess          RetCode = 3
	SSNothingToDo        RetCode = 2
	SSSuccess            RetCode = 1
	SSUnknownError       RetCode = 0
	SSTwoPrimaries       RetCode = -1
	SSNoUpToDateDisk     RetCode = -2
	SSNoLocalDisk        RetCode = -4
	SSNoRemoteDisk       RetCode = -5
	SSConnectedOutdates  RetCode = -6
	SSPrimaryNOP         RetCode = -7
	SSResyncRunning      RetCode = -8
	SSAlreadyStandAlone  RetCode = -9
	SSCWFailedByPeer     RetCode = -10
	SSIsDiskless         RetCode = -11
	SSDeviceInUse        RetCode = -12
	SSNoNetConfig        RetCode = -13
	SSNoVerifyAlg        RetCode = -14
	SSNeedConnection     RetCode = -15
	SSLowerThanOutdated  RetCode = -16
	SSNotSupported       RetCode = -17
	SSInTransientState   RetCode = -18
	SSConcurrentStChg    RetCode = -19
	SSOVolPeerPri        RetCode = -20
	SSOutdateWithoutConn RetCode = -21
)

var retNames = map[RetCode]string{
	SSCWNoNeed: "SS_CW_NO_NEED", SSCWSuccess: "SS_CW_SUCCESS", SSNothingToDo: "SS_NOTHING_TO_DO", SSSuccess: "SS_SUCCESS",
	SSUnknownError: "SS_UNKNOWN_ERROR", SSTwoPrimaries: "SS_TWO_PRIMARIES", SSNoUpToDateDisk: "SS_NO_UP_TO_DATE_DISK",
	SSNoLocalDisk: "SS_NO_LOCAL_DISK", SSNoRemoteDisk: "SS_NO_REMOTE_DISK", SSConnectedOutdates: "SS_CONNECTED_OUTDATES",
	SSPrimaryNOP: "SS_PRIMARY_NOP", SSResyncRunning: "SS_RESYNC_RUNNING", SSAlreadyStandAlone: "SS_ALREADY_STANDALONE",
	SSCWFailedByPeer: "SS_CW_FAILED_BY_PEER", SSIsDiskless: "SS_IS_DISKLESS", SSDeviceInUse: "SS_DEVICE_IN_USE",
	SSNoNetConfig: "SS_NO_NET_CONFIG", SSNoVerifyAlg: "SS_NO_VERIFY_ALG", SSNeedConnection: "SS_NEED_CONNECTION",
	SSLowerThanOutdated: "SS_LOWER_THAN_OUTDATED", SSNotSupported: "SS_NOT_SUPPORTED",
	SSInTransientState: "SS_IN_TRANSIENT_STATE", SSConcurrentStChg: "SS_CONCURRENT_ST_CHG", SSOVolPeerPri: "SS_O_VOL_PEER_PRI",
	SSOutdateWithoutConn: "SS_OUTDATE_WO_CONN",
}

func (c RetCode) String() string {
	if n, ok := retNames[c]; ok {
		return n
	}
	return fmt.Sprintf("RetCode(%d)", int32(c))
}

// OK says whether the change was made or was not needed.
func (c RetCode) OK() bool { return c >= SSSuccess }
